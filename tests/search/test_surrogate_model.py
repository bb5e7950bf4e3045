"""The Gaussian processes of the surrogate-ranked search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from petra.search.surrogate.gp import Hyper, Posterior, Rows, Targets, _loss, _Products, fit


def observed(count: int, seed: int = 0, opinion: float = 0.0) -> tuple[Rows, np.ndarray]:
    """Rows, somebody's opinion of them, so many times a part of the truth, and the truth."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 6))
    return Rows(x, opinion * np.sin(3 * x[:, 2])), 2 * x[:, 0] - x[:, 1] ** 2 + 0.3 * np.sin(
        3 * x[:, 2]
    )


def test_the_model_predicts_what_it_did_not_see_and_says_how_well() -> None:
    x, y = observed(80)
    targets = Targets.of(y, np.full(80, 1e-4))
    posterior = Posterior(x, targets, fit(x, targets))
    unseen, truth = observed(200, seed=1)
    mean, deviation = posterior.predict(unseen)
    assert np.mean((mean - truth) ** 2) < 0.05 * truth.var()
    assert np.mean(np.abs(mean - truth) < 3 * deviation) > 0.6
    assert deviation.min() > 0


def test_the_posterior_is_that_of_the_normal_distribution() -> None:
    """By the textbook, from the inverse of the covariance."""
    rows, y = observed(7, opinion=0.5)
    hyper = Hyper(0.7, 0.3, 0.9, 0.8, 0.05, 0.6)
    variances = np.linspace(0.01, 0.1, 7)
    targets = Targets(0.0, 1.0, y, variances)

    def kernel(one: tuple[np.ndarray, float], other: tuple[np.ndarray, float]) -> float:
        (a, m), (b, n) = one, other
        apart = ((a - b) ** 2).mean()
        squares = (2 * (a**2 - 1 / 3) * 2 * (b**2 - 1 / 3)).mean()
        flat = 0.7 * (a * b).mean() + 0.3 * squares + 0.6 * m * n
        return float(flat + 0.9 * np.exp(-apart / (2 * 0.64)))

    x = [(a, float(m)) for a, m in zip(rows.features, rows.opinions, strict=True)]
    k = np.array([[kernel(a, b) for b in x] for a in x]) + np.diag(variances + 0.05 + 1e-6)
    z = (np.zeros(6), 0.8)
    cross = np.array([kernel(z, a) for a in x])
    seen = Rows(z[0][None], np.array([z[1]]))
    mean, deviation = Posterior(rows, targets, hyper).predict(seen)
    assert mean[0] == pytest.approx(cross @ np.linalg.solve(k, y))
    known = kernel(z, z) - cross @ np.linalg.solve(k, cross)
    usual = np.median([kernel(a, a) for a in x])
    tempered = np.sqrt(known) * min(1.0, usual / kernel(z, z))
    assert deviation[0] == pytest.approx(tempered)


def test_the_gradient_of_the_likelihood_is_its_slope() -> None:
    x, y = observed(20, opinion=0.5)
    targets, products = Targets.of(y, np.full(20, 1e-3)), _Products.of(x, x)
    theta = np.log([0.4, 0.7, 0.3, 0.8, 0.02, 0.6])
    _, gradient = _loss(theta, products, targets)
    for i, slope in enumerate(gradient):
        step = 1e-5 * np.eye(6)[i]
        above, below = (_loss(theta + sign * step, products, targets)[0] for sign in (1, -1))
        assert slope == pytest.approx((above - below) / 2e-5, rel=1e-4)


def test_what_is_believed_is_certain_and_changes_no_mean() -> None:
    x, y = observed(30)
    targets = Targets.of(y, np.full(30, 1e-3))
    posterior = Posterior(x, targets, fit(x, targets))
    z, near = observed(3, seed=5)[0], observed(20, seed=6)[0]
    believed = posterior.with_believed(z)
    assert believed.mean(near) == pytest.approx(posterior.mean(near), abs=1e-3)
    assert (believed.predict(z)[1] < 0.9 * posterior.predict(z)[1]).all()


@pytest.mark.parametrize("opinion", [2.0, -0.3])
def test_an_opinion_helps_where_it_has_something_to_say(opinion: float) -> None:
    """However it is scaled, and if it says the opposite."""
    unseen, truth = observed(200, seed=1, opinion=opinion)
    errors = {}
    for name, said in (("told", opinion), ("alone", 0.0)):
        x, y = observed(12, opinion=said)
        targets = Targets.of(y, np.full(12, 1e-4))
        rows = unseen if said else Rows.of(unseen.features)
        mean, _ = Posterior(x, targets, fit(x, targets)).predict(rows)
        errors[name] = np.mean((mean - truth) ** 2)
    assert errors["told"] < 0.9 * errors["alone"]


def test_an_opinion_about_nothing_does_little_harm() -> None:
    errors = []
    for made_up in (True, False):
        (x, y), (unseen, truth) = observed(40), observed(200, seed=1)
        rng = np.random.default_rng(7)
        if made_up:
            x, unseen = (replace(r, opinions=rng.normal(size=len(r))) for r in (x, unseen))
        targets = Targets.of(y, np.full(40, 1e-4))
        mean, _ = Posterior(x, targets, fit(x, targets)).predict(unseen)
        errors.append(np.mean((mean - truth) ** 2))
    assert errors[0] < 1.3 * errors[1]
