"""Parity: passes what agrees, names what does not."""

from __future__ import annotations

import numpy as np
import pytest

from petra.core.errors import ParityError
from petra.runtimes.verify import compare

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
        compare(REFERENCE.copy(), REFERENCE, quantized=True, score=lambda p: 0.8 if p is REFERENCE else 0.9)


@pytest.mark.parametrize(
    ("artifact", "words"),
    [(REFERENCE[:, :3], "returns shape"), (np.where(REFERENCE > 3, np.nan, REFERENCE), "NaN"), (-REFERENCE, "differ")],
)
def test_wrong_predictions_fail(artifact: np.ndarray, words: str) -> None:
    if words == "NaN":
        artifact = artifact.copy()
        artifact[0, 0] = np.nan
    with pytest.raises(ParityError, match=words):
        compare(artifact, REFERENCE, quantized=True, score=accuracy)
