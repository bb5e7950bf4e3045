"""Normalisation and missing values as a layer in front of a model, so that they ship with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from petra.core.errors import DataError
from petra.core.interface import DICT
from petra.core.ragged import Padding
from petra.tasks.ragged import RaggedItems
from petra.tasks.tensors import apply_at_full_precision, as_tensor

_CHUNK = 2**22  # numbers that are held in float64 at a time
_LEAST = 1e-30  # a deviation whose inverse float32 can hold


class Normalise(nn.Module):
    """z = (x - mean) * scale for each channel, and 0 where x is NaN: a missing value counts as the
    mean. Integers, such as pixels, become float32.

    mean, scale: (1, ..., channels, ..., 1), buffers, which training leaves alone. Costs a few
    operations per number.
    """

    mean: Tensor
    scale: Tensor
    in_float32 = True  # whatever the network behind it computes in: see petra.model.layers.half

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Self:
        """As every module, but for the precision of `mean` and `scale`."""
        return apply_at_full_precision(self, fn, recurse, ("mean", "scale"))

    @classmethod
    def fit(cls, inputs: Any, *, axis: int = 1) -> Normalise:
        """With the means and standard deviations of training inputs, over all but one axis.

        inputs: numbers (n, ...), or a `petra.ragged` with one input. axis: that of the channels in
        a batch; 1 of (n, channels, length) and of images, -1 of (n, length, channels). Missing
        values (NaN) are left out; a constant channel is only shifted. Raises DataError for a
        channel without any value and for infinity. Where the mean is a million times the spread,
        as of dates in seconds, float32 has no digits left for it: give differences.
        """
        if isinstance(inputs, RaggedItems):
            _check_axis(inputs, axis)
            columns = _in_one_row(inputs)
            if len(columns) != 1:
                raise DataError(
                    f"normalise: several inputs: {', '.join(columns)}",
                    hint="petra.data.normalised(model, train) takes them by name",
                )
            (inputs,) = columns.values()
        if isinstance(inputs, tuple | Mapping):
            raise DataError(
                f"normalise: several inputs in a {type(inputs).__name__}",
                hint="one array; or petra.data.normalised(model, train) with inputs by name",
            )
        array = as_tensor(inputs, what="normalise: inputs").numpy()
        if not -array.ndim <= axis < array.ndim or axis % array.ndim == 0:
            raise DataError(
                f"normalise: inputs of shape {array.shape} have no axis {axis} of channels",
                hint="axis=1 of (n, channels, ...), axis=-1 of (n, length, channels)",
            )
        place = axis % array.ndim
        mean, deviation = _moments(array, place)
        known = deviation > np.maximum(np.finfo(np.float32).eps * np.abs(mean), _LEAST)
        scale = np.divide(1.0, deviation, out=np.ones_like(mean), where=known)
        shape = _along(place, array.ndim)
        return cls(*(torch.from_numpy(v.astype(np.float32)).reshape(shape) for v in (mean, scale)))

    def in_words(self) -> str:
        """What it does to an input, for people."""
        mean, deviation = (t.flatten().tolist() for t in (self.mean, 1 / self.scale))
        shown = [", ".join(f"{v:.4g}" for v in values[:8]) for values in (mean, deviation)]
        more = ", ..." if len(mean) > 8 else ""
        channels = "channel" if len(mean) == 1 else "channels"
        return (
            f"takes the mean off and divides by the standard deviation, {len(mean)} {channels}:"
            f" means {shown[0]}{more}; deviations {shown[1]}{more}; NaN counts as the mean"
        )

    def forward(self, x: Tensor) -> Tensor:
        z = (x.to(self.mean.dtype) - self.mean) * self.scale
        return torch.where(z.isnan(), 0.0, z) if x.is_floating_point() else z


class NormaliseNamed(nn.Module):
    """A model of named inputs behind a `Normalise` for some of them; others pass as they are.

    With a padding that has a mask, the inputs `padded` are 0 behind the end of an item, after
    normalisation too.
    """

    def __init__(
        self,
        normalise: Mapping[str, Normalise],
        model: nn.Module,
        *,
        padding: Padding | None = None,
        padded: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.names = self.normalised_inputs = tuple(normalise)
        self.normalise = nn.ModuleList(normalise.values())
        self.model = model
        self.mask = padding.mask if padding is not None else ""
        self.length_axis = padding.axis + (padding.axis >= 0) if padding is not None else 1
        self.padded = frozenset(padded) if self.mask else frozenset()

    def forward(self, **inputs: Tensor) -> Any:
        for name, normalise in zip(self.names, self.normalise, strict=True):
            z = normalise(inputs[name])
            if name in self.padded:
                z = z * self._inside(inputs[self.mask], z)
            inputs[name] = z
        return self.model(**inputs)

    def _inside(self, mask: Tensor, z: Tensor) -> Tensor:
        """The mask (n, length) with as many axes as `z`."""
        length = self.length_axis % z.ndim
        inside = mask.to(z.dtype)
        for _ in range(1, length):
            inside = inside.unsqueeze(1)
        for _ in range(length + 1, z.ndim):
            inside = inside.unsqueeze(-1)
        return inside


def normalised(model: nn.Module, train: Any, *, axis: int = 1) -> nn.Module:
    """The model behind a normalisation that is fitted on the training split: a `Sequential`, or, of
    named inputs, a `NormaliseNamed` for those of floating point.

    train: the split as a task takes it, an (inputs, targets) pair or a `petra.ragged`. axis: see
    `Normalise.fit`.
    """
    if isinstance(train, RaggedItems) and train.structure == DICT:
        _check_axis(train, axis)
        found = _each(_in_one_row(train), axis)
        padded = tuple(train.ragged.values)
        return NormaliseNamed(found, model, padding=train.ragged.padding, padded=padded)
    if isinstance(train, RaggedItems):
        return nn.Sequential(Normalise.fit(train, axis=axis), model)
    if not isinstance(train, tuple) or len(train) != 2:
        raise DataError(
            f"normalise: the training split is a {type(train).__name__}",
            hint="an (inputs, targets) pair of arrays, or petra.ragged(...)",
        )
    if isinstance(train[0], Mapping):
        return NormaliseNamed(_each(train[0], axis), model)
    return nn.Sequential(Normalise.fit(train[0], axis=axis), model)


def _each(columns: Mapping[str, Any], axis: int) -> dict[str, Normalise]:
    """A normalisation for each input of floating point."""
    arrays = {name: as_tensor(x, what=f"normalise: {name}") for name, x in columns.items()}
    real = {name: x for name, x in arrays.items() if x.is_floating_point()}
    return {name: Normalise.fit(x, axis=axis) for name, x in real.items()}


def _check_axis(items: RaggedItems, axis: int) -> None:
    """Raise DataError where `axis` of a batch is that of the length, which has no channels."""
    length = items.ragged.padding.axis
    for name, values in items.ragged.values.items():
        ndim = values.ndim + 1
        if values.dtype.kind == "f" and axis % ndim == (length + (length >= 0)) % ndim:
            raise DataError(
                f"normalise: axis {axis} of {name!r} is that of its length, not of channels",
                hint="axis=-1 of items (length, channels), axis=1 of items (channels, length);"
                " items (length,) have a channel as (1, length)",
            )


def _in_one_row(items: RaggedItems) -> dict[str, np.ndarray]:
    """All inputs by name; those with a length as a batch of one item has them, as long as all items
    together."""
    axis = items.ragged.padding.axis
    rows = {
        name: np.moveaxis(values[None], 1, axis + (axis >= 0))
        for name, values in items.ragged.values.items()
    }
    return rows | dict(items.ragged.items)


def _moments(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (channels,) in float64 of what is not NaN, in two passes."""
    over = tuple(i for i in range(array.ndim) if i != axis)
    count, total, squares = (np.zeros(array.shape[axis]) for _ in range(3))
    for part in _parts(array):
        count += (~np.isnan(part)).sum(axis=over)
        total += np.nansum(part, axis=over)
    odd = np.flatnonzero((count == 0) | ~np.isfinite(total))
    if len(odd):
        what = "no value" if count[odd[0]] == 0 else "infinity"
        raise DataError(
            f"normalise: channel {odd[0]} has {what} in the training data",
            hint="leave it out, or give it values: nothing can be learnt from it",
        )
    mean = total / count
    for part in _parts(array):
        centred = part - mean.reshape(_along(axis, array.ndim))
        squares += np.nansum(np.square(centred), axis=over)
    return mean, np.sqrt(squares / count)


def _along(axis: int, ndim: int) -> list[int]:
    """The shape of an array of channels among `ndim` axes."""
    return [-1 if i == axis else 1 for i in range(ndim)]


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array in float64, some items at a time."""
    items = max(1, _CHUNK // max(1, array[:1].size))
    for start in range(0, len(array), items):
        yield array[start : start + items].astype(np.float64)
