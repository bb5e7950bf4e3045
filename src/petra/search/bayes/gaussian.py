"""Gaussian processes with the SAAS prior (Eriksson & Jankowiak 2021, "High-dimensional Bayesian
optimization with sparse axis-aligned subspaces"), fitted by BoTorch.

The prior lets few features matter: of the scaled inverse lengths tau / l_j^2, half-Cauchy, most are
near zero. A process has E members, sets of hyperparameters over which predictions are averaged: the
maxima of the posterior for a few fixed tau (seconds), or samples of it by the no-U-turn sampler
(minutes).

Everything is computed in double precision on one thread, so that the number of cores does not
decide a result.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from botorch.exceptions.warnings import OptimizationWarning
from botorch.models.map_saas import EnsembleMapSaasSingleTaskGP
from botorch.optim.fit import fit_gpytorch_mll_scipy
from botorch.utils.constraints import LogTransformedInterval
from gpytorch.kernels import ScaleKernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import GammaPrior
from linear_operator.utils.errors import NanError, NotPSDError
from numpy.typing import NDArray
from torch import Tensor

from petra.core.errors import MissingExtra
from petra.search.bayes.observations import Lesson

MEMBERS = 4  # of an ensemble of maxima
# Quantiles of tau's half-Cauchy prior, one for each member, in place of draws from it.
TAUS = [0.1 * math.tan(math.pi / 2 * (i + 0.5) / MEMBERS) for i in range(MEMBERS)]
# Of L-BFGS. Of toy trials held out, ranks are predicted as well as after 150, within .03.
ITERATIONS = 25
JITTER = 1e-6
NUGGET = 0.02  # where it is not inferred, about what it is on petra's toy problem
# The no-U-turn sampler's: half of BoTorch's own steps, for as many members (16).
WARMUP, DRAWS, THINNING = 256, 128, 8


@contextmanager
def exact() -> Iterator[None]:
    """One thread and no gradients; as it was before when it ends."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, eq=False)
class Hyperparameters:
    """Of E members: Matern 5/2 kernels with their scales, means (E, 1), and the variance (E, 1) of
    what the features do not explain, beyond the noise of measuring.
    """

    kernel: ScaleKernel
    mean: Tensor
    nugget: Tensor


def fit(x: NDArray[np.float64], lesson: Lesson, *, sampled: bool, seed: int) -> Hyperparameters:
    """Hyperparameters from features `x` (n, d) of the lesson's trials.

    The maxima do not depend on `seed`. Cost: O(n^3 + n^2 d) an iteration.
    """
    inputs, scores = torch.as_tensor(x), torch.as_tensor(lesson.scores)
    variances = torch.as_tensor(lesson.variances)
    with exact(), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizationWarning)  # the limit of iterations
        if sampled:
            return _samples(inputs, scores, variances, seed)
        return _maxima(inputs, scores, variances)


def _maxima(x: Tensor, scores: Tensor, variances: Tensor) -> Hyperparameters:
    model = ensemble(x, scores, variances)
    try:
        fit_gpytorch_mll_scipy(
            ExactMarginalLogLikelihood(model.likelihood, model), options={"maxiter": ITERATIONS}
        )
    except (NanError, NotPSDError):  # no likelihood there: stay with where the search begins
        model = ensemble(x, scores, variances)
    return hyperparameters(model)


def ensemble(x: Tensor, scores: Tensor, variances: Tensor) -> EnsembleMapSaasSingleTaskGP:
    """The model, its hyperparameters where the search for their maximum begins."""
    taus = torch.tensor(TAUS).to(x)
    model = EnsembleMapSaasSingleTaskGP(
        x, scores[:, None], variances[:, None], taus=taus, outcome_transform=None
    )
    # BoTorch has either measured noise or inferred; features that do not tell all pipelines apart
    # need both.
    model.likelihood = FixedNoiseGaussianLikelihood(
        variances.expand(MEMBERS, -1).clone(),
        learn_additional_noise=True,
        batch_shape=torch.Size([MEMBERS]),
        noise_prior=GammaPrior(0.9, 10.0),
        noise_constraint=LogTransformedInterval(1e-4, 1.0, initial_value=1e-2),
    ).to(x)
    return model.train()


def hyperparameters(model: EnsembleMapSaasSingleTaskGP) -> Hyperparameters:
    """Those that the model has now."""
    return Hyperparameters(
        model.covar_module.eval(),
        model.mean_module.constant.detach().reshape(-1, 1),
        model.likelihood.second_noise_covar.noise.detach().reshape(-1, 1),
    )


def _samples(x: Tensor, scores: Tensor, variances: Tensor, seed: int) -> Hyperparameters:
    try:
        from botorch.fit import fit_fully_bayesian_model_nuts
        from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP

        model = SaasFullyBayesianSingleTaskGP(
            x, scores[:, None], (variances + NUGGET)[:, None], outcome_transform=None
        )
        fit_fully_bayesian_model_nuts(
            model, warmup_steps=WARMUP, num_samples=DRAWS, thinning=THINNING,
            disable_progbar=True, seed=seed,
        )  # fmt: skip
    except ImportError as error:
        raise MissingExtra("numpyro", extra="bayes") from error
    mean = model.mean_module.constant.detach().reshape(-1, 1)
    return Hyperparameters(model.covar_module, mean, torch.full_like(mean, NUGGET))


class Posterior:
    """A process given observations: predictions of values without noise."""

    def __init__(self, given: Hyperparameters, x: NDArray[np.float64], lesson: Lesson) -> None:
        """`x` (n, d) are the features of the lesson's trials. O(E n^3)."""
        self.given, self.x = given, torch.as_tensor(x)
        self.limit = lesson.limit
        with exact():
            noise = torch.as_tensor(lesson.variances) + given.nugget + JITTER
            covariance = self.covariance(self.x, self.x) + torch.diag_embed(noise)
            self._root = torch.linalg.cholesky(covariance)
            rest = torch.as_tensor(lesson.scores) - given.mean
            self._white = _solved(self._root, rest[..., None])[..., 0]

    @property
    def members(self) -> int:
        return len(self.given.mean)

    @property
    def variance(self) -> Tensor:
        """Of every value before anything was observed, (E, 1)."""
        scale: Tensor = self.given.kernel.outputscale.detach()[:, None]
        return scale

    def covariance(self, one: Tensor, other: Tensor) -> Tensor:
        """Of values before anything was observed: (E, a, b) for features (a, d) and (b, d)."""
        covariance: Tensor = self.given.kernel(one, other).to_dense()
        return covariance

    def explained(self, x: Tensor) -> Tensor:
        """L^-1 k(observed, x), (E, n, N), L L' the covariance of what was observed."""
        return _solved(self._root, self.covariance(self.x, x))

    def mean(self, explained: Tensor) -> Tensor:
        """Means (E, N) of values whose covariance with what was observed is so `explained`."""
        return self.given.mean + (explained * self._white[..., None]).sum(-2)

    def marginals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations, both (E, N), of the values at `x` (N, d)."""
        known = self.explained(x)
        variance = self.variance - known.square().sum(-2)
        return self.mean(known), variance.clamp_min(JITTER).sqrt()


class Draws:
    """S joint draws for each of E members: of the values at `points` (r, d), which are `values`
    (E, S, r), and, given those, of values at others.
    """

    def __init__(self, posterior: Posterior, points: Tensor, noise: Tensor) -> None:
        """`noise` (E, S, r + 1) is standard normal; the last column is what others are drawn by,
        the same for all of them, so that they are compared fairly.
        """
        self._posterior, self._points = posterior, points
        self._noise, self._own = noise[..., :-1], noise[..., -1:]
        self._known = posterior.explained(points)
        covariance = posterior.covariance(points, points) - self._known.mT @ self._known
        jitter = JITTER * (1 + posterior.variance[..., None]) * torch.eye(len(points))
        self._root = torch.linalg.cholesky(covariance + jitter)
        self.values = posterior.mean(self._known)[:, None] + self._noise @ self._root.mT

    def at(self, x: Tensor) -> Tensor:
        """Values (E, S, N) at `x` (N, d), one by one: draws of two of them are not joint."""
        p = self._posterior
        known = p.explained(x)
        left = p.covariance(self._points, x) - self._known.mT @ known
        shared = _solved(self._root, left)
        variance = p.variance - known.square().sum(-2) - shared.square().sum(-2)
        deviation = variance.clamp_min(JITTER).sqrt()
        return p.mean(known)[:, None] + self._noise @ shared + self._own * deviation[:, None]


def _solved(root: Tensor, right: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.solve_triangular(root, right, upper=False)
    return solution
