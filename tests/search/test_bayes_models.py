"""The parts of Bayesian optimisation, against brute force and BoTorch's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from petra.core.measurement import Measurement
from petra.core.objective import Constraint
from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import Fidelity, Proposal, TrialStatus
from petra.moo.hypervolume import hypervolume
from petra.search.bayes.copula import NormalCopula
from petra.search.bayes.observations import FAILING, Lesson, lessons, quantities, remembered
from petra.search.bayes.walk import Walk
from petra.search.scaling import scale
from petra.space.encoding import Encoding
from petra.space.table import MOVES
from petra.testing.search_suite import failed
from petra.testing.toy import OBJECTIVES, toy_baseline, toy_space, toy_trial

Floats = NDArray[np.float64]


def pipelines(number: int) -> list[Pipeline]:
    return [toy_space().sample(generator(i, "pipelines")) for i in range(number)]


# ---- the copula


def test_scores_are_quantiles_of_ranks() -> None:
    values = generator(1, "copula").lognormal(size=31)
    expected = [NormalDist().inv_cdf(((values < v).sum() + 0.5) / 31) for v in values]
    assert np.allclose(NormalCopula(values)(values), expected)


def test_scores_do_not_depend_on_the_scale_of_costs() -> None:
    values = generator(2, "copula").uniform(1, 2, size=20)
    assert np.allclose(NormalCopula(values)(values), NormalCopula(values**3)(values**3))


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    scores = NormalCopula([3.0, 1.0, 1.0, 1.0, 2.0])([1.0, 2.0, 3.0])
    assert np.allclose(scores, [NormalDist().inv_cdf(q) for q in (0.3, 0.7, 0.9)])


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [1.0, 1.5, 1e6], [-3.0, 0.0, 2.0]])
def test_scores_increase_beyond_what_was_seen(values: list[float]) -> None:
    copula = NormalCopula(values)
    ends = np.array([min(values) - 7, min(values), max(values), max(values) + 7])
    assert (np.diff(copula(ends)) >= 0).all()
    assert np.diff(copula(ends))[[0, 2]].min() > 0


def test_errors_are_scaled_like_scores() -> None:
    values = np.arange(11.0)
    copula = NormalCopula(values)
    middle = (copula([6.0]) - copula([4.0]))[0] / 2
    assert copula.error([5.0], [1.0])[0] == pytest.approx(middle)
    assert copula.error(values, np.zeros(11)) == pytest.approx(0)


# ---- what is taught


def test_what_was_not_trained_teaches_costs_alone() -> None:
    scaling = scale(OBJECTIVES, (), toy_baseline())
    known = [toy_trial(Proposal(i + 1, p)) for i, p in enumerate(pipelines(3))]
    assert all(t.measured for t in known)
    left = replace(known[0], status=TrialStatus.FAILED, failure=None)
    low = replace(known[1], fidelity=Fidelity(epochs=0.2))
    taught = lessons(scaling, [toy_baseline(), left, low, known[2]])
    assert list(taught["quality"].rows) == [0, 3]
    assert list(taught["size_bytes"].rows) == [0, 1, 2, 3]


def test_what_failed_is_a_lesson_once_something_has() -> None:
    scaling = scale(OBJECTIVES, (), toy_baseline())
    trials = [toy_trial(Proposal(i + 1, p)) for i, p in enumerate(pipelines(3))]
    assert FAILING not in lessons(scaling, trials)
    broken = failed(Proposal(4, pipelines(4)[3]))
    timed_out = Proposal(5, pipelines(5)[4]).ended(TrialStatus.TIMED_OUT)
    taught = lessons(scaling, [*trials, broken, timed_out])
    assert list(taught[FAILING].scores) == [-1, -1, -1, 1, 1]
    assert list(taught["quality"].rows) == [0, 1, 2]


def test_noise_is_the_measurements_own() -> None:
    scaling = scale(OBJECTIVES, (), toy_baseline())
    trials = [toy_trial(Proposal(i + 1, p)) for i, p in enumerate(pipelines(12))]
    loud = [
        replace(t, metrics={**t.metrics, "quality": replace(t.metrics["quality"], stderr=0.02)})
        for t in trials
        if t.measured
    ]
    quiet, noisy = lessons(scaling, trials)["quality"], lessons(scaling, loud)["quality"]
    assert (noisy.variances > quiet.variances).all()
    apart = quiet.variances < 0.05  # of others, ranks are uncertain however little noise there is
    assert apart.sum() >= 6
    assert (noisy.variances[apart] > 4 * quiet.variances[apart]).all()
    assert (lessons(scaling, trials)["size_bytes"].variances < 1e-5).all()


def test_constraints_end_the_region_of_interest_or_have_a_quantity_of_their_own() -> None:
    texts = ("size <= 300 kB", "quality >= baseline - 0.1", "params <= 1000", "size >= 1 kB")
    baseline = toy_baseline()
    extra = {"params": Measurement(4000.0)}
    baseline = replace(baseline, metrics={**baseline.metrics, **extra})
    bounds = tuple(map(Constraint.parse, texts))
    scaling = scale(OBJECTIVES, bounds, baseline)
    found = quantities(scaling)
    assert list(found) == ["quality", "latency_ratio", "size_bytes", str(bounds[2]), str(bounds[3])]
    assert found["size_bytes"].limit == pytest.approx(300e3 / baseline.metrics["size_bytes"].mean)
    assert found["quality"].limit == pytest.approx(0.1 / baseline.metrics["quality"].mean)
    for metric, constraint in (("params", bounds[2]), ("size_bytes", bounds[3])):
        kept = found[str(constraint)]
        for value in (10.0, 999.0, 1001.0, 1e6):
            broken = constraint.violation({metric: Measurement(value)}, baseline.metrics)
            assert (kept.cost(value) <= kept.limit) == (broken == 0)


def test_of_many_trials_the_best_and_the_latest_are_remembered() -> None:
    scaling = scale(OBJECTIVES, (), toy_baseline())
    trials = [toy_trial(Proposal(i + 1, p)) for i, p in enumerate(pipelines(60))]
    assert remembered(trials, scaling, 60) == list(range(60))
    kept = remembered(trials, scaling, 40)
    assert len(kept) == 40
    assert kept == sorted(set(kept))
    assert set(range(55, 60)) <= set(kept)
    usable = [i for i, t in enumerate(trials) if scaling.usable(t)]
    costs = np.array([scaling.costs(trials[i]) for i in usable])
    front = [
        i
        for i, c in zip(usable, costs, strict=True)
        if not ((costs <= c).all(1) & (costs < c).any(1)).any()
    ]
    assert 0 < len(front) <= 20
    assert set(front) <= set(kept)


# ---- local search


def by_epochs(encoding: Encoding) -> Callable[[Floats], Floats]:
    at = [i for i, name in enumerate(encoding.names) if name in ("tune.epochs", "prune.ratio")]
    return lambda x: -np.abs(x[:, at] - 0.8).sum(axis=1)


def test_a_walk_climbs_and_never_meets_what_is_known() -> None:
    space, encoding = toy_space(), Encoding(toy_space())
    worth, asked = by_epochs(encoding), []
    known = [encoding.encode(p) for p in pipelines(5)]

    def counted(x: Floats) -> Floats:
        asked.extend(row.tobytes() for row in x)
        return worth(x)

    walk = Walk(space, MOVES.all(), encoding, known, generator(3, "walk"))
    front = dict(enumerate(pipelines(5)))
    found = walk.best(counted, front, restarts=10, evaluations=2000)
    assert found is not None
    assert space.is_legal(found.pipeline)
    assert found.worth == worth(encoding.encode(found.pipeline)[None])[0]
    drawn = [encoding.encode(space.sample(generator(i, "draws"))) for i in range(2000)]
    assert found.worth > worth(np.stack(drawn)).max()
    assert len(set(asked)) == len(asked) <= 2000
    assert not set(asked) & {row.tobytes() for row in known}


def test_a_walk_in_a_space_that_is_known_finds_nothing() -> None:
    space, encoding = toy_space(max_length=1), Encoding(toy_space(max_length=1))
    half = [p for p in pipelines(200) if [s.kind for s in p] == ["half"]][:1]
    only = replace(space, cards={"half": space.cards["half"]})
    encoding = Encoding(only)
    walk = Walk(only, MOVES.all(), encoding, map(encoding.encode, half), generator(4, "walk"))
    assert walk.best(by_epochs(encoding), {1: half[0]}, restarts=2, evaluations=500) is None


# ---- models and improvement

torch = pytest.importorskip("torch")
pytest.importorskip("botorch")


def some_lessons(objectives: int, n: int = 14, d: int = 3) -> tuple[Floats, list[Lesson]]:
    rng = generator(objectives, "lessons")
    x = rng.uniform(size=(n, d))
    made = []
    for j in range(objectives):
        costs = np.sin(3 * x[:, j % d] + j) + 0.5 * x[:, (j + 1) % d]
        scores = NormalCopula(costs)(costs)
        made.append(Lesson(np.arange(n), scores, np.full(n, 1e-3), 1.5))
    return x, made


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_gains_are_those_of_the_hypervolume(m: int) -> None:
    from petra.search.bayes.improvement import boxes, gains

    rng = generator(m, "gains")
    front, reference = rng.uniform(0, 1.2, size=(8, m)), np.ones(m)
    points = rng.uniform(-0.2, 1.2, size=(20, m))
    found = gains(
        torch.as_tensor(points), boxes(torch.as_tensor(front), torch.as_tensor(reference))
    )
    before = hypervolume(front, reference)
    for point, gain in zip(points, found.tolist(), strict=True):
        after = hypervolume(np.vstack([front, point]), reference)
        assert gain == pytest.approx(after - before, abs=1e-5)
        assert gain > 0


def test_predictions_are_botorchs() -> None:
    from petra.search.bayes import gaussian

    x, (lesson,) = some_lessons(1)
    tensors = map(torch.as_tensor, (x, lesson.scores, lesson.variances))
    model = gaussian.ensemble(*tensors).eval()
    given = gaussian.hyperparameters(model)
    here, deviation = gaussian.Posterior(given, x, lesson).marginals(torch.as_tensor(x + 0.1))
    with torch.no_grad():
        there = model.posterior(torch.as_tensor(x + 0.1).double())
        expected, spread = there.mean[..., 0], there.variance[..., 0]
    assert torch.allclose(here, expected, atol=1e-4)
    assert torch.allclose(deviation.square(), spread, atol=1e-3)


def test_the_improvement_is_botorchs() -> None:
    """Close in value over many draws, and the same in order, with constraint and pending points."""
    from botorch.acquisition.multi_objective import logei
    from botorch.models import ModelListGP
    from botorch.sampling import SobolQMCNormalSampler

    from petra.search.bayes import gaussian, improvement

    logei._load_attempted = True  # no compiler is called
    x, made = some_lessons(3)
    models = [
        gaussian.ensemble(*map(torch.as_tensor, (x, m.scores, m.variances))).eval() for m in made
    ]
    given = map(gaussian.hyperparameters, models)
    posteriors = [gaussian.Posterior(g, x, s) for g, s in zip(given, made, strict=True)]
    candidates = generator(9, "candidates").uniform(size=(40, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(improvement, "DRAWS", 1024)
        ours = improvement.Improvement(posteriors[:2], posteriors[2:], x, generator(1, "draws"))(
            candidates
        )
    with torch.no_grad():
        theirs = logei.qLogNoisyExpectedHypervolumeImprovement(
            ModelListGP(*models),
            ref_point=torch.tensor([-1.5, -1.5]).double(),
            X_baseline=torch.as_tensor(x),
            objective=first_two_as_gains(),
            sampler=SobolQMCNormalSampler(torch.Size([256]), seed=1),
            prune_baseline=False,
            cache_root=False,
            constraints=[lambda y: y[..., 2] - made[2].limit],
        )(torch.as_tensor(candidates)[:, None]).numpy()
    worthy = theirs > theirs.max() - 4
    assert worthy.sum() >= 10
    assert np.corrcoef(ours[worthy], theirs[worthy])[0, 1] > 0.97
    assert np.abs(ours[worthy] - theirs[worthy]).mean() < 0.3


def first_two_as_gains() -> object:
    from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective

    return GenericMCMultiOutputObjective(lambda y, X=None: -y[..., :2])
