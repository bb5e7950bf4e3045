"""Parity: passes what agrees, names what does not."""

from __future__ import annotations

import numpy as np
import pytest

from petra.core.errors import ParityError
from petra.runtimes.verify import compare, error_rise, has_fixed_infinities

RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(size=(400, 5)).astype(np.float32)
LABELS = REFERENCE.argmax(1)


def accuracy(predictions: np.ndarray) -> float:
    return float((predictions.argmax(1) == LABELS).mean())


def test_equal_predictions_pass() -> None:
    parity = compare(REFERENCE.copy(), REFERENCE, quantized=False, score=accuracy)
    assert parity == {"max_abs_error": 0.0, "relative_error": 0.0, "metric_difference": 0.0}


def test_rounding_passes_for_int8_and_not_for_float() -> None:
    noisy = REFERENCE + 1e-2 * RNG.normal(size=REFERENCE.shape).astype(np.float32)
    assert compare(noisy, REFERENCE, quantized=True, score=lambda p: 1.0)["relative_error"] < 0.02
    with pytest.raises(ParityError, match="differ by"):
        compare(noisy, REFERENCE, quantized=False, score=lambda p: 1.0)


def test_a_shifted_metric_fails_although_the_numbers_are_close() -> None:
    with pytest.raises(ParityError, match="metric differs"):
        compare(
            REFERENCE.copy(),
            REFERENCE,
            quantized=True,
            score=lambda p: 0.8 if p is REFERENCE else 0.9,
        )


@pytest.mark.parametrize(
    ("artifact", "words"),
    [
        (REFERENCE[:, :3], "returns shape"),
        (np.where(REFERENCE > 3, np.nan, REFERENCE), "NaN"),
        (-REFERENCE, "differ"),
    ],
)
def test_wrong_predictions_fail(artifact: np.ndarray, words: str) -> None:
    if words == "NaN":
        artifact = artifact.copy()
        artifact[0, 0] = np.nan
    with pytest.raises(ParityError, match=words):
        compare(artifact, REFERENCE, quantized=True, score=accuracy)


def rmse(predictions: np.ndarray, targets: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predictions - targets) ** 2)))


def turned(n: int, count: int, *, of: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference (n, of), an artifact in which `count` right items at a near tie turn wrong, and the
    labels.
    """
    rng = np.random.default_rng(n + count)
    reference = rng.normal(size=(n, of))
    labels = reference.argmax(1)
    artifact = reference + 3e-3 * rng.normal(size=reference.shape)
    for i in range(count):
        first, second = np.argsort(reference[i])[:-3:-1]
        reference[i, second] = reference[i, first] - 5e-3
        artifact[i] = reference[i]
        artifact[i, second] += 1e-2
    return reference, artifact, labels


@pytest.mark.parametrize("n", [20, 40, 150, 400, 512])
@pytest.mark.parametrize("count", [1, 2])
def test_an_item_or_two_at_a_near_tie_do_not_make_a_file_wrong(n: int, count: int) -> None:
    reference, artifact, labels = turned(n, count)
    score = lambda p: float((p.argmax(1) == labels).mean())  # noqa: E731
    assert (
        abs(compare(artifact, reference, quantized=True, score=score)["metric_difference"]) >= 1 / n
    )


@pytest.mark.parametrize("n", [40, 150, 512])
def test_items_that_all_turn_for_the_worse_are_too_many_soon(n: int) -> None:
    """A fifth of the items, or two points of accuracy of 512: with a direction, not by chance."""
    reference, artifact, labels = turned(n, 10)
    with pytest.raises(ParityError, match="metric differs"):
        compare(
            artifact,
            reference,
            quantized=True,
            score=lambda p: float((p.argmax(1) == labels).mean()),
        )


@pytest.mark.parametrize("noise", [1e-6, 1e-2])
@pytest.mark.parametrize("error", [0.0, 1e-3, 0.1])
def test_an_error_of_nothing_may_rise_by_what_predictions_moved(noise: float, error: float) -> None:
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(60, 1))
    targets = reference + error * rng.normal(size=reference.shape)
    artifact = reference + noise * rng.normal(size=reference.shape)
    parity = compare(artifact, reference, quantized=True, score=lambda p: rmse(p, targets))
    assert parity["relative_error"] < 0.05


def test_a_bias_shows_in_an_error_that_is_small() -> None:
    """All predictions off to one side, which the numbers alone allow."""
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(400, 1))
    targets = reference + np.abs(0.1 * rng.normal(size=reference.shape))
    with pytest.raises(ParityError, match="metric differs"):
        compare(reference - 0.03, reference, quantized=True, score=lambda p: rmse(p, targets))


@pytest.mark.parametrize("best", [False, True])
def test_the_ends_of_a_metric(best: bool) -> None:
    """All right and one turns wrong; all wrong and one turns right."""
    reference, artifact, labels = turned(150, 1)
    aims = (
        labels
        if best
        else np.where(artifact.argmax(1) == labels, (labels + 1) % 5, artifact.argmax(1))
    )
    score = lambda p: float((p.argmax(1) == aims).mean())  # noqa: E731
    assert score(reference) == float(best)
    assert abs(
        compare(artifact, reference, quantized=True, score=score)["metric_difference"]
    ) == pytest.approx(1 / 150)


@pytest.mark.parametrize("constant", [0.0, 1e-20, 3.0, 1e6])
def test_constant_predictions_are_compared_with_their_size(constant: float) -> None:
    reference = np.full((50, 2), constant, np.float32)
    nearly = reference * np.float32(1 + 3e-7)
    compare(nearly, reference, quantized=False, score=lambda p: 1.0)
    with pytest.raises(ParityError, match="differ by"):
        compare(reference * 1.1 + 0.1, reference, quantized=True, score=lambda p: 1.0)


def test_logits_of_excluded_classes() -> None:
    reference = REFERENCE.copy()
    reference[:, 2] = -np.inf
    assert has_fixed_infinities(reference)
    parity = compare(
        reference * np.float32(1 + 1e-5), reference, quantized=False, score=lambda p: 1.0
    )
    assert 0 < parity["relative_error"] < 1e-4
    for artifact in (REFERENCE, -reference, np.where(np.isinf(reference), np.nan, reference)):
        with pytest.raises(ParityError, match="NaN or infinity"):
            compare(artifact, reference, quantized=True, score=lambda p: 1.0)
    reference[3, 1] = -np.inf
    assert not has_fixed_infinities(reference)
    assert not has_fixed_infinities(np.full((2, 2), np.nan))


def test_a_metric_that_is_undefined_on_these_items_is_not_compared() -> None:
    score = lambda p: float("nan") if p is not REFERENCE else 0.5  # noqa: E731
    parity = compare(REFERENCE.copy(), REFERENCE, quantized=True, score=score)
    assert np.isnan(parity["metric_difference"])


def test_decisions_differ_by_the_share_that_differs() -> None:
    """Classes that a model chooses itself: one of many that turns over is no wrong file."""
    chosen = LABELS.astype(np.int64)
    turned = chosen.copy()
    turned[:8] = (turned[:8] + 4) % 5
    parity = compare(turned, chosen, quantized=True, score=lambda p: 1.0)
    assert parity["relative_error"] == pytest.approx(8 / 400)
    with pytest.raises(ParityError, match=r"differ by 2\.00%"):
        compare(turned, chosen, quantized=False, score=lambda p: 1.0)
    assert compare(turned > 2, chosen > 2, quantized=True, score=lambda p: 1.0)["max_abs_error"]


@pytest.mark.parametrize(("wrong", "passes"), [(2, True), (20, False)])
def test_a_metric_of_decisions_may_move_by_what_their_number_allows(
    wrong: int, passes: bool
) -> None:
    chosen = LABELS.astype(np.int64)
    turned = chosen.copy()
    turned[:wrong] = (turned[:wrong] + 1) % 5

    def right(p: np.ndarray) -> float:
        return float((p == chosen).mean())

    if passes:
        assert compare(turned, chosen, quantized=True, score=right)["metric_difference"] < 0
    else:
        with pytest.raises(ParityError, match="the metric differs"):
            compare(turned, chosen, quantized=True, score=right)


def off_by(share: float, error: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An artifact that differs by a share of the spread, its model and targets, of which the model
    is off by another.
    """
    rng = np.random.default_rng(3)
    reference = rng.normal(size=5000).astype(np.float32)
    targets = reference + error * rng.normal(size=5000)
    return (reference + share * rng.normal(size=5000)).astype(np.float32), reference, targets


@pytest.mark.parametrize("share", [0.005, 0.01, 0.015])
def test_what_the_error_rises_by_is_said(share: float) -> None:
    artifact, reference, targets = off_by(share)
    error = lambda p: rmse(p, targets)  # noqa: E731
    parity = compare(artifact, reference, quantized=True, score=error, error=error)
    assert parity["error_rise"] == pytest.approx(share**2 / (2 * 0.05**2), rel=0.1)


@pytest.mark.parametrize("maximize", [False, True])
def test_a_file_may_be_off_by_a_share_of_the_error_not_of_the_spread(maximize: bool) -> None:
    """4% of the spread are less than the 5% that any quantized file may be off by, and most of this
    error. Of a coefficient of determination near 1 it is the error that counts, not the .2% that
    the coefficient itself falls by.
    """
    artifact, reference, targets = off_by(0.04)

    def score(predictions: np.ndarray) -> float:
        found = rmse(predictions, targets)
        return 1 - found**2 / float(np.var(targets)) if maximize else found

    def error(predictions: np.ndarray) -> float:
        return 1 - score(predictions) if maximize else score(predictions)

    assert "error_rise" not in compare(artifact, reference, quantized=True, score=score)
    with pytest.raises(ParityError, match=r"changes its error by \d+\.\d%"):
        compare(artifact, reference, quantized=True, score=score, error=error)
    # An error as large as that of most regressions hides it.
    artifact, reference, targets = off_by(0.04, error=0.5)
    assert compare(artifact, reference, quantized=True, score=score, error=error)


def test_what_is_no_error_has_no_share() -> None:
    """Decisions, whose other side is no class; a log likelihood, which may be below 0."""
    chosen = LABELS.astype(np.int64)
    turned = chosen.copy()
    turned[:8] = (turned[:8] + 4) % 5

    def wrong(p: np.ndarray) -> float:
        assert ((p >= 0) & (p < 5)).all()
        return float((p != chosen).mean())

    parity = compare(
        turned, chosen, quantized=True, score=lambda p: 0.5 + wrong(p) / 100, error=wrong
    )
    assert "error_rise" not in parity
    artifact, reference, targets = off_by(0.01)
    surprise = lambda p: float(np.square((p - targets) / 0.1).mean() / 2) - 1.4  # noqa: E731
    assert -1.4 < surprise(reference) < 0
    parity = compare(artifact, reference, quantized=True, score=surprise, error=surprise)
    assert parity["error_rise"] == 0.0


def test_rounding_of_floats_costs_no_error_however_small_that_is() -> None:
    artifact, reference, targets = off_by(5e-4, error=0.0)
    error = lambda p: rmse(p, targets)  # noqa: E731
    parity = compare(artifact, reference, quantized=False, score=error, error=error)
    assert parity["error_rise"] == 0.0
    assert error_rise(reference, artifact - reference, lambda p: 0.0) == 0.0
    assert error_rise(reference, artifact - reference, lambda p: float("nan")) == 0.0
