"""Parity: the reloaded artifact must compute what the PyTorch model computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from petra.core.errors import ParityError

# Root mean square difference over the spread of the reference. Float exports agree to 1e-6; integer kernels round
# differently from simulated quantization, by a fraction of a step per layer.
FLOAT_TOLERANCE = 1e-3
INT8_TOLERANCE = 5e-2
METRIC_TOLERANCE = 5e-3  # of the reference's metric


def compare(
    artifact: np.ndarray,
    reference: np.ndarray,
    *,
    quantized: bool,
    score: Callable[[np.ndarray], float],
) -> dict[str, float]:
    """Compare predictions (n, ...) numerically and in the task's metric; raise ParityError beyond the tolerance.

    Returns max_abs_error, relative_error (rms over spread) and metric_difference (artifact minus reference).
    """
    if artifact.shape != reference.shape:
        raise ParityError(f"the artifact returns shape {artifact.shape}, the model {reference.shape}")
    if not np.isfinite(artifact).all():
        raise ParityError("the artifact returns NaN or infinity", hint="a numeric overflow in the exported graph")
    difference = artifact.astype(np.float64) - reference
    spread = float(np.std(reference.astype(np.float64))) or 1.0
    parity = {
        "max_abs_error": float(np.abs(difference).max()),
        "relative_error": float(np.sqrt(np.mean(difference**2))) / spread,
        "metric_difference": score(artifact) - score(reference),
    }
    tolerance = INT8_TOLERANCE if quantized else FLOAT_TOLERANCE
    if parity["relative_error"] > tolerance:
        raise ParityError(
            f"predictions differ by {parity['relative_error']:.2%} of their spread from the PyTorch model's",
            hint=f"at most {tolerance:.1%} is allowed for a {'quantized' if quantized else 'float'} model",
        )
    allowed = METRIC_TOLERANCE * max(abs(score(reference)), 1e-9)
    if abs(parity["metric_difference"]) > allowed:
        raise ParityError(
            f"the metric differs by {parity['metric_difference']:+.4f} from the PyTorch model's on the same items",
            hint=f"at most {allowed:.4f} is allowed",
        )
    return parity
