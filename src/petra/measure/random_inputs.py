"""Made-up inputs of the shapes an artifact declares, for trying a file without its data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from petra.core.errors import ArtifactError
from petra.core.interface import Interface, TensorSpec
from petra.core.rng import generator
from petra.measure.interface import interface_of
from petra.runtimes.base import Arrays, InputSpec, numpy_type

LIMIT_BYTES = 2**30
"""The most that is made up, or read from a file, to try a model on."""


def random_inputs(specs: Sequence[InputSpec], batch: int, *, seed: int = 0) -> Arrays:
    """`batch` items by input name, as `random_items` makes them."""
    return random_items(interface_of(specs), batch, seed=seed)


def random_items(interface: Interface, batch: int, *, seed: int = 0) -> Arrays:
    """`batch` items by input name: floats standard normal, integers and booleans 0 or 1.

    Zero and one are valid token ids, classes and mask values almost everywhere. The first items are
    the same for every batch size. Raises ArtifactError for an input that takes no numbers, or more
    of them than `LIMIT_BYTES`.
    """
    shapes = interface.shapes(batch)
    types = {spec.name: _type(spec) for spec in interface.inputs}
    needed = sum(math.prod(shape) * types[name].itemsize for name, shape in shapes.items())
    if needed > LIMIT_BYTES:
        raise ArtifactError(
            f"the inputs {shapes} take {needed / 2**30:.3g} GB, and at most {LIMIT_BYTES / 2**30:g}"
            " GB are made up",
            hint=(
                "give smaller ones with --inputs file.npz, if the file's sizes are free, or a"
                " smaller batch"
            ),
        )
    return {
        spec.name: _random(
            shapes[spec.name],
            types[spec.name],
            interface.free_batch.get(spec.name, 0),
            generator(seed, "input", spec.name),
        )
        for spec in interface.inputs
    }


def _type(spec: TensorSpec) -> np.dtype:
    dtype = numpy_type(spec)
    if dtype.kind == "U":
        raise ArtifactError(
            f"input {spec.name!r} takes text, which random numbers cannot stand for",
            hint="give some with --inputs file.npz",
        )
    return dtype


def _random(
    shape: tuple[int, ...], dtype: np.dtype, axis: int, rng: np.random.Generator
) -> np.ndarray:
    """Drawn item by item along `axis`."""
    drawn = (shape[axis], *shape[:axis], *shape[axis + 1 :]) if shape else ()
    values = rng.standard_normal(drawn) if dtype.kind == "f" else rng.integers(0, 2, drawn)
    array = np.asarray(values).astype(dtype)
    return np.ascontiguousarray(np.moveaxis(array, 0, axis)) if shape else array
