"""Made-up inputs of the shapes an artifact declares, for trying a file without its data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from petra.core.errors import ArtifactError
from petra.core.rng import generator
from petra.runtimes.base import Arrays, InputSpec

FREE_SIZE = 16  # for a free dimension that is not the batch, such as a sequence's length


def random_inputs(specs: Sequence[InputSpec], batch: int, *, seed: int = 0) -> Arrays:
    """`batch` items by input name: floats standard normal, integers and booleans 0 or 1.

    Zero and one are valid token ids, classes and mask values almost everywhere. The first items are the same for
    every batch size. Raises ArtifactError for an input type that is no number.
    """
    return {spec.name: _random(spec, batch, generator(seed, "input", spec.name)) for spec in specs}


def _random(spec: InputSpec, batch: int, rng: np.random.Generator) -> np.ndarray:
    shape = (batch, *(FREE_SIZE if size is None else size for size in spec.shape[1:]))
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        raise ArtifactError(
            f"input {spec.name!r} has type {spec.dtype!r}", hint="numeric inputs are supported"
        ) from None
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)
