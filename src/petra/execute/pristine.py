"""That a stage left the teacher and the data alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.model.description.state_hash import tensor_bytes
from petra.tasks.base import Task


@dataclass(frozen=True)
class Pristine:
    """What teacher and data were before any stage ran: a checksum of every tensor by where it is.

    Of the teacher that is every parameter and floating-point buffer. Of the data it is what the
    splits hold in memory; what the attributes of a person's own dataset are for is not known here.
    Reads all of it, about a gigabyte a second.
    """

    teacher: Mapping[str, int]
    data: Mapping[str, int]

    @staticmethod
    def of(teacher: nn.Module, task: Task) -> Pristine:
        data: dict[str, int] = {}
        for name, split in task.splits():
            data |= {f"{name} split{path}": _mark(held) for path, held in _held(split, "")}
        return Pristine(_marks(teacher), data)

    def check(self, teacher: nn.Module, task: Task, *, stage: str) -> None:
        """Raise StageRefused, naming what changed, unless both are as they were."""
        now = Pristine.of(teacher, task)
        for what, before, after in (
            ("the teacher", self.teacher, now.teacher),
            ("the data", self.data, now.data),
        ):
            changed = [path for path, mark in before.items() if after.get(path, mark) != mark]
            if changed:
                raise StageRefused(
                    f"{stage} changed {what}: {changed[0]}",
                    hint=(
                        "a stage acts on the model it is given; everything else is shared with"
                        " later stages"
                    ),
                )


_OWN = ("petra.tasks", "petra.core.ragged", "torch.utils.data")


def _marks(teacher: nn.Module) -> dict[str, int]:
    return {
        name: _mark(tensor)
        for name, tensor in teacher.state_dict().items()
        if tensor.is_floating_point()
    }


def _held(thing: object, path: str, depth: int = 8) -> Iterator[tuple[str, Tensor | np.ndarray]]:
    """Tensors and arrays in datasets, loaders and samplers of petra's and torch's own, in whatever
    wraps what.
    """
    if isinstance(thing, Tensor | np.ndarray):
        yield path, thing
    elif isinstance(thing, tuple | list) and len(thing) <= 100 and depth:
        for i, item in enumerate(thing):
            yield from _held(item, f"{path}[{i}]", depth - 1)
    elif isinstance(thing, dict) and len(thing) <= 100 and depth:
        for key, item in thing.items():
            yield from _held(item, f"{path}[{key!r}]", depth - 1)
    elif type(thing).__module__.startswith(_OWN) and depth:
        for name, item in getattr(thing, "__dict__", {}).items():
            yield from _held(item, f"{path}.{name}", depth - 1)


def _mark(held: Tensor | np.ndarray) -> int:
    if isinstance(held, Tensor):
        mark = 0
        for part in tensor_bytes(held):
            mark = zlib.crc32(part, mark)
        return mark
    if held.dtype.hasobject:
        return 0
    return zlib.crc32(
        np.ascontiguousarray(held).reshape(-1).view(np.uint8).data,
        zlib.crc32(repr(held.shape).encode()),
    )
