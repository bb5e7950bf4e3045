"""Parity: the reloaded artifact must compute what the PyTorch model computes.

Two things are compared on the same items. The predictions: the root mean square of the difference,
over the spread of the reference. And the task's metric, whose difference must be at most

    max(0.5% of the reference's metric, |m| + 2 s)

where m and s are mean and standard deviation of how far the metric moves when the differences seen
are given random signs, one per item. A file whose predictions are right but for rounding differs
from the model without direction: the sign of each item's difference is as likely the one as the
other, so the difference of its metric is one more draw of those. This is a sign-flip test at the
level of two standard deviations, and it knows what a fixed share cannot: how many items there are
and what each weighs (one of 150 turned over at a near tie is 0.7 points of accuracy), and that an
error of 0 can only rise, by what the predictions moved. Errors with a direction still fail: of
items that all turn for the worse about half do so under random signs, so that five are too many, of
however many items. Of simulated classifiers (10 classes, 92% right) with independent errors of 0.3%
to 4.5% none of 720 files was refused, where the fixed share alone refused 78 of 240 with 150 items;
with 512 items 3 net changes are allowed on average, 2.3 before.

Of a task that is judged by its error, a share of the spread says little: where the error itself is
a twentieth of the spread, integer kernels may be off by as much. There, what differs by more than a
float file may costs at most a share of that error, `ERROR_TOLERANCE`: the mean of what the error
rises by for the differences d and for -d, of which chance is no part. Of a root mean squared error
that is the share d^2 / (2 e^2): a twentieth for differences of a third of the error e.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from petra.core.errors import ParityError

# Root mean square difference over the spread of the reference. Float exports agree to 1e-6; integer
# kernels round differently from simulated quantization, by a fraction of a step per layer.
FLOAT_TOLERANCE = 1e-3
INT8_TOLERANCE = 5e-2
METRIC_TOLERANCE = 5e-3  # of the reference's metric
ERROR_TOLERANCE = 5e-2  # of the reference's error, where that is the metric
SIGN_DRAWS = 200
# Of the reference's magnitude: predictions that hardly vary are compared with their size.
LEAST_SPREAD = 1e-3


def compare(
    artifact: np.ndarray,
    reference: np.ndarray,
    *,
    quantized: bool,
    score: Callable[[np.ndarray], float],
    error: Callable[[np.ndarray], float] | None = None,
) -> dict[str, float]:
    """Compare predictions (n, ...) numerically and in the task's metric, or raise ParityError.
    error: of a task that is judged by the error of predicted values, that of some predictions, less
    of which is better whatever the metric is; decisions have none.

    Infinities, such as the logits of excluded classes, must stand in the same places; the rest is
    finite. A metric that is undefined (NaN) on these items, as some are on few, is not compared.
    Returns max_abs_error, relative_error (rms over spread), metric_difference (artifact minus
    reference) and, of tasks judged by their error, error_rise (as a share of the error; 0 where the
    difference is that of a float file). Costs two calls of `score`, three of `error`, and 200 more
    where the metric differs by more than its share.
    """
    largest, off = distance(artifact, reference)
    finite = np.isfinite(reference)
    difference = np.zeros(reference.shape)
    difference[finite] = artifact[finite].astype(np.float64) - reference[finite].astype(np.float64)
    own, theirs = float(score(artifact)), float(score(reference))
    decides = _decides(reference)
    parity = {
        "max_abs_error": largest,
        "relative_error": off,
        "metric_difference": own - theirs,
    }
    if parity["relative_error"] > tolerance(quantized):
        raise ParityError(
            f"predictions differ by {parity['relative_error']:.2%} of their spread from the PyTorch"
            " model's",
            hint=(
                f"at most {tolerance(quantized):.1%} is allowed for a"
                f" {'quantized' if quantized else 'float'} model"
            ),
        )
    if error is not None and not decides:
        rough = parity["relative_error"] > FLOAT_TOLERANCE
        parity["error_rise"] = error_rise(reference, difference, error) if rough else 0.0
        _check_error_rise(parity["error_rise"])
    allowed = METRIC_TOLERANCE * abs(theirs)
    if abs(parity["metric_difference"]) > allowed:
        allowed = max(allowed, moved_by_chance(reference, difference, score))
    if abs(parity["metric_difference"]) > allowed:
        raise ParityError(
            f"the metric differs by {parity['metric_difference']:+.4f} from the PyTorch model's on"
            " the same items",
            hint=(
                f"at most {allowed:.4f} is allowed for {len(reference)} items and differences of"
                " this size"
            ),
        )
    return parity


def tolerance(quantized: bool) -> float:
    """What is allowed of the relative error, of a quantized model and of a float one."""
    return INT8_TOLERANCE if quantized else FLOAT_TOLERANCE


def distance(
    found: np.ndarray, reference: np.ndarray, *, spread: float = 0.0
) -> tuple[float, float]:
    """Largest absolute difference of predictions (n, ...), and its root mean square over the
    reference's spread, or `spread` where that is more, as that of more items is; of decisions the
    share that differs.

    Raises ParityError for other shapes, and for NaN and infinities that stand elsewhere.
    """
    if found.shape != reference.shape:
        raise ParityError(f"the artifact returns shape {found.shape}, the model {reference.shape}")
    _check_finite(found, reference)
    finite = np.isfinite(reference)
    values = reference[finite].astype(np.float64)
    difference = found[finite].astype(np.float64) - values
    largest = float(np.abs(difference).max(initial=0.0))
    if _decides(reference):
        return largest, float(np.mean(difference != 0)) if difference.size else 0.0
    return largest, _rms(difference) / max(_spread(values), spread)


def error_rise(
    reference: np.ndarray, difference: np.ndarray, error: Callable[[np.ndarray], float]
) -> float:
    """How much further `error` moves away for the differences, and for their opposites, on average,
    as a share of it: reference, difference (n, ...). 0 where it is undefined, or not above 0, as no
    error is.
    """
    sides = [error((reference + s * difference).astype(reference.dtype)) for s in (1.0, -1.0)]
    now = error(reference)
    share = abs(sum(sides) / 2 - now) / now if now > 0 else 0.0
    return float(share) if np.isfinite(share) else 0.0


def _check_error_rise(share: float) -> None:
    if share > ERROR_TOLERANCE:
        raise ParityError(
            f"predictions differ from the PyTorch model's by what changes its error by {share:.1%}",
            hint=(
                f"at most {ERROR_TOLERANCE:.0%} of the error is allowed: keep the output layers and"
                " the most sensitive ones in float"
            ),
        )


def moved_by_chance(
    reference: np.ndarray, difference: np.ndarray, score: Callable[[np.ndarray], float]
) -> float:
    """|mean| + 2 standard deviations of `score` when items' differences get random signs; of
    decisions, which have no other side, when random items have theirs.

    0 where there is no difference. Draws are the same every time.
    """
    if not difference.any():
        return 0.0
    random, before = np.random.default_rng(0), score(reference)
    sides = [0.0, 1.0] if _decides(reference) else [-1.0, 1.0]
    signs = random.choice(sides, size=(SIGN_DRAWS, len(reference)))
    shape = (-1, *[1] * (reference.ndim - 1))
    moved = np.array(
        [score((reference + s.reshape(shape) * difference).astype(reference.dtype)) for s in signs]
    )
    moved = moved[np.isfinite(moved)] - before
    if not len(moved):
        return 0.0
    # Rounding, where all draws agree.
    return float(abs(moved.mean()) + 2 * moved.std()) * (1 + 1e-6)


def _decides(predictions: np.ndarray) -> bool:
    """Whether they are whole numbers or booleans. Of these the share that differs stands for the
    relative error: class 7 is not farther from class 1 than class 2 is.
    """
    return predictions.dtype.kind in "biu"


def has_fixed_infinities(predictions: np.ndarray) -> bool:
    """Whether predictions (n, ...) are finite but for infinities at the same places of items.

    So are the logits of excluded classes. True where everything is finite; NaN never is.
    """
    if np.isnan(predictions).any():
        return False
    return bool((np.isinf(predictions) == np.isinf(predictions[:1])).all())


def _check_finite(artifact: np.ndarray, reference: np.ndarray) -> None:
    odd = ~np.isfinite(artifact)
    same = odd == ~np.isfinite(reference)
    if same.all() and np.array_equal(artifact[odd], reference[odd], equal_nan=False):
        return
    item = (
        int(np.argwhere(odd & ~same)[0][0])
        if (odd & ~same).any()
        else int(np.argwhere(odd | ~same)[0][0])
    )
    raise ParityError(
        f"the artifact returns NaN or infinity for item {item} where the model does not, or the"
        " other way round",
        hint="a numeric overflow in the exported graph",
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def _spread(values: np.ndarray) -> float:
    """Standard deviation; of nearly constant values a share of their magnitude, 1 of zeros."""
    return max(float(np.std(values)) if values.size else 0.0, LEAST_SPREAD * _rms(values)) or 1.0
