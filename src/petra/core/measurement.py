"""A measured number never travels alone: mean, standard error, sample count, unit, host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

LARGEST = 1e100  # no measured number is larger; squares of such numbers are still finite


@dataclass(frozen=True)
class Measurement:
    """Mean of `n` samples with its standard error, in `unit`, taken on `host` (see
    `petra.measure.host`).

    Counted quantities (bytes, parameters, MACs) have `stderr` 0 and `n` 1.
    """

    mean: float
    stderr: float = 0.0
    n: int = 1
    unit: str = ""
    host: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """Normal 95% confidence interval of the mean."""
        half = 1.96 * self.stderr
        return (self.mean - half, self.mean + half)

    @staticmethod
    def of(samples: Sequence[float], *, unit: str = "", host: str = "") -> Measurement:
        """Mean and standard error of independent samples; at least one is needed."""
        n = len(samples)
        if n == 0:
            raise ValueError("a measurement needs at least one sample")
        mean = math.fsum(samples) / n
        variance = math.fsum((s - mean) ** 2 for s in samples) / (n - 1) if n > 1 else 0.0
        return Measurement(mean, math.sqrt(variance / n), n, unit, host)

    def as_dict(self) -> dict[str, float | int | str]:
        return asdict(self)

    def __str__(self) -> str:
        noise = f" ± {self.stderr:.2g}" if self.stderr else ""
        return f"{self.mean:.4g}{noise}{' ' + self.unit if self.unit else ''}"
