"""A Gaussian process that fits in milliseconds: linear, quadratic and squared-exponential kernel,
noise known for every observation (Rasmussen & Williams 2006, chapters 2 and 5).

    k(x, z) = a x.z / d + q x^2.z^2 / d + b exp(-|x - z|^2 / (2 l^2 d)) + p m(x) m(z)
    y ~ N(0, K + diag(noise) + s I)

where x^2 holds the squares of x, centred: what lies between is learnt from what lies at the ends.
m is an opinion from elsewhere: y follows it with an unknown slope of variance p, so that one that
is wrong is found out.

x and z are features of d numbers, centred; targets are standardised before and put back after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Floats = NDArray[np.float64]
_JITTER = 1e-6
# Logarithms of a, q, b, l, s, p, in units of the standardised targets: where the climb begins, and
# the mean and width of what is believed of them, which keeps few observations from being explained
# by noise alone, or exactly.
_MEAN = np.log([0.5, 0.5, 0.5, 1.0, 0.01, 0.5])
_WIDTH = np.array([1.5, 1.5, 1.5, 1.0, 2.0, 1.5])
_LOW, _HIGH = _MEAN - 4 * _WIDTH, _MEAN + 4 * _WIDTH


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters: weights of the first three kernels, length of the last of them, extra noise,
    weight of the opinion.
    """

    linear: float
    quadratic: float
    radial: float
    length: float
    noise: float
    opinion: float = 1.0


@dataclass(frozen=True)
class Rows:
    """Features (n, d) in [-1, 1], and an opinion of each row (n,), 0 where there is none."""

    features: Floats
    opinions: Floats

    @staticmethod
    def of(features: Floats) -> Rows:
        """Rows that nobody has an opinion of."""
        return Rows(features, np.zeros(len(features)))

    def __len__(self) -> int:
        return len(self.features)

    def and_then(self, more: Rows) -> Rows:
        return Rows(
            np.vstack([self.features, more.features]), np.append(self.opinions, more.opinions)
        )


@dataclass(frozen=True)
class _Products:
    """Of n rows x and k rows z, each (n, k): x.z / d, the same of squares, |x - z|^2 / d, and the
    products of their opinions.
    """

    dots: Floats
    squares: Floats
    distances: Floats
    opinions: Floats

    @staticmethod
    def of(one: Rows, other: Rows) -> _Products:
        x, z = one.features, other.features
        d = x.shape[1]
        dots = x @ z.T
        distances = (x**2).sum(axis=1)[:, None] + (z**2).sum(axis=1) - 2 * dots
        squares = _squared(x) @ _squared(z).T
        opinions = np.outer(one.opinions, other.opinions)
        return _Products(dots / d, squares / d, np.maximum(distances, 0.0) / d, opinions)

    def kernel(self, hyper: Hyper) -> Floats:
        radial = hyper.radial * np.exp(self.distances / (-2 * hyper.length**2))
        flat = hyper.linear * self.dots + hyper.quadratic * self.squares
        return flat + hyper.opinion * self.opinions + radial


def _squared(x: Floats) -> Floats:
    """Squares of features in [-1, 1], less their mean over that interval, and as wide as them."""
    return 2 * (x**2 - 1 / 3)


@dataclass(frozen=True)
class Targets:
    """Observations (n,) with the variances of their means, standardised."""

    centre: float
    unit: float
    y: Floats
    noise: Floats

    @staticmethod
    def of(values: Floats, variances: Floats) -> Targets:
        centre, unit = float(values.mean()), float(values.std())
        unit = unit if unit > 1e-12 else 1e-12
        return Targets(centre, unit, (values - centre) / unit, variances / unit**2)


def _loss(theta: Floats, products: _Products, targets: Targets) -> tuple[float, Floats]:
    """Minus the log of marginal likelihood times prior, and its gradient (6,), at the logarithms
    `theta` of a, q, b, l, s, p (Rasmussen & Williams 2006, eq. 5.9).
    """
    a, q, b, length, s, p = np.exp(theta)
    radial = b * np.exp(products.distances / (-2 * length**2))
    k = a * products.dots + q * products.squares + p * products.opinions + radial
    k[np.diag_indices(len(k))] += s + targets.noise + _JITTER
    try:
        factor = cholesky(k, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros(len(theta))
    alpha = cho_solve((factor, True), targets.y, check_finite=False)
    weight = cho_solve((factor, True), np.eye(len(k)), check_finite=False)
    weight -= np.outer(alpha, alpha)
    gradient = 0.5 * np.array(
        [
            a * (weight * products.dots).sum(),
            q * (weight * products.squares).sum(),
            (weight * radial).sum(),
            (weight * radial * products.distances).sum() / length**2,
            s * np.trace(weight),
            p * (weight * products.opinions).sum(),
        ]
    )
    off = (theta - _MEAN) / _WIDTH
    value = 0.5 * targets.y @ alpha + np.log(np.diag(factor)).sum() + 0.5 * off @ off
    return float(value), gradient + off / _WIDTH


def fit(x: Rows, targets: Targets) -> Hyper:
    """The hyperparameters that maximise the marginal likelihood times a log-normal prior, for
    observations at `n` rows, by L-BFGS-B with exact gradients. O(n^3) a step.
    """
    found = minimize(
        _loss,
        _MEAN,
        args=(_Products.of(x, x), targets),
        jac=True,
        bounds=list(zip(_LOW, _HIGH, strict=True)),
        method="L-BFGS-B",
        options={"maxiter": 30},
    )
    return Hyper(*map(float, np.exp(found.x)))


class Posterior:
    """What is believed after observations of n rows `x`. Predictions cost O(n^2) each."""

    def __init__(self, x: Rows, targets: Targets, hyper: Hyper) -> None:
        self.x, self.targets, self.hyper = x, targets, hyper
        k = _Products.of(x, x).kernel(hyper)
        k[np.diag_indices(len(x))] += hyper.noise + targets.noise + _JITTER
        self._factor: Floats = cholesky(k, lower=True, check_finite=False)
        self._alpha: Floats = cho_solve((self._factor, True), targets.y, check_finite=False)

    def mean(self, z: Rows) -> Floats:
        """Means (k,) at k rows."""
        t = self.targets
        means: Floats = t.centre + t.unit * (
            _Products.of(z, self.x).kernel(self.hyper) @ self._alpha
        )
        return means

    def predict(self, z: Rows) -> tuple[Floats, Floats]:
        """Means and standard deviations (k,) of the noiseless value at k rows.

        The linear and the quadratic kernel are least certain in the corners of the space, where few
        good pipelines are; deviations are less by the factor by which a row's prior variance is
        above the usual one of what was observed.
        """
        t = self.targets
        cross = _Products.of(z, self.x).kernel(self.hyper)
        inner = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        own = self._prior(z)
        deviation = np.sqrt(np.maximum(own - (inner**2).sum(axis=0), 1e-12))
        deviation *= np.minimum(1.0, np.median(self._prior(self.x)) / own)
        return t.centre + t.unit * (cross @ self._alpha), t.unit * deviation

    def _prior(self, rows: Rows) -> Floats:
        """Variances (k,) before anything was observed."""
        h, z = self.hyper, rows.features
        d = z.shape[1]
        linear = h.linear * (z**2).sum(axis=1) / d
        quadratic = h.quadratic * (_squared(z) ** 2).sum(axis=1) / d
        variances: Floats = linear + quadratic + h.radial + h.opinion * rows.opinions**2
        return variances

    def with_believed(self, z: Rows) -> Posterior:
        """The same, had its own means been observed, without noise, at k rows: certain
        where it was not, and of the same opinion.
        """
        t = self.targets
        y = np.concatenate([t.y, (self.mean(z) - t.centre) / t.unit])
        noise = np.concatenate([t.noise, np.zeros(len(z))])
        return Posterior(self.x.and_then(z), Targets(t.centre, t.unit, y, noise), self.hyper)
