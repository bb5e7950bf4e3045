"""The normal-copula transform: values by their ranks, as quantiles of a standard normal variable.

Of n values, the one of rank r becomes the normal score

    z = Phi^-1((r - 1/2) / n)

(Salinas et al. 2020, "A quantile-based approach for hyperparameter transfer learning"; AutoPEFT,
arXiv 2301.12132). Outliers and skew are gone, and it does not matter on which increasing scale a
cost is given.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class NormalCopula:
    """The transform made from `values` (n,): at least one, all finite.

    Equal values share the mean of their ranks. Between values it is linear; beyond them it goes on
    with its mean slope (1 where all values are equal), so that bounds that nothing has reached have
    a score too. It is increasing: a cost stays a cost.
    """

    def __init__(self, values: ArrayLike) -> None:
        known, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
        shares = (np.cumsum(counts) - counts / 2) / counts.sum()
        self._known: Floats = known
        self._scores: Floats = np.array([NormalDist().inv_cdf(float(s)) for s in shares])
        run = float(known[-1] - known[0])
        self._slope = float(self._scores[-1] - self._scores[0]) / run if run > 0 else 1.0

    def __call__(self, values: ArrayLike) -> Floats:
        """Scores of values (k,), whether they are among those it was made from or not."""
        x = np.asarray(values, dtype=np.float64)
        beyond = np.minimum(x - self._known[0], 0.0) + np.maximum(x - self._known[-1], 0.0)
        scores: Floats = np.interp(x, self._known, self._scores) + self._slope * beyond
        return scores

    def error(self, values: ArrayLike, errors: ArrayLike) -> Floats:
        """Standard errors (k,) of scores: half of the distance from that of v - e to v + e's."""
        v, e = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
        return (self(v + e) - self(v - e)) / 2
