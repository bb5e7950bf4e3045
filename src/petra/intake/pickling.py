"""Whether live objects can be sent to worker processes, and which attribute cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle
import numpy as np
from torch import Tensor, nn

from petra.core.errors import DataError

_DEEPEST = 12


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles everything but the numbers, which always can be."""

    def persistent_id(self, value: object) -> object:
        return (
            "numbers" if isinstance(value, Tensor | np.ndarray) and type(value) in _PLAIN else None
        )


_PLAIN = (Tensor, nn.Parameter, np.ndarray)


def check_sendable(value: object, *, what: str) -> None:
    """Raise DataError, naming the attribute, unless `value` can be pickled.

    Costs a pass over its structure.
    """
    error = _problem(value)
    if error is None:
        return
    path, last = "", value
    for _ in range(_DEEPEST):
        step = next(
            ((name, child, found) for name, child in _parts(last) if (found := _problem(child))),
            None,
        )
        if step is None:
            break
        path, last, error = f"{path}{step[0]}", step[1], step[2]
    said = (str(error).splitlines() or [type(error).__name__])[0]
    raise DataError(
        f"{what}{path} cannot be sent to a worker process: {type(error).__name__}: {said}",
        hint=(
            f"keep no {type(last).__name__} there, or make it when it is needed and leave it out in"
            " __getstate__"
        ),
    )


def _problem(value: object) -> Exception | None:
    try:
        _Pickler(_Nowhere()).dump(value)
    except Exception as error:  # noqa: BLE001 - foreign code raises what it likes
        return error
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What `value` holds, each with how it is written behind the value's own name."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", child) for key, child in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{i}]", child) for i, child in enumerate(value))
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        for name, child in vars(value).items():
            if isinstance(value, nn.Module) and name == "_modules":
                yield from ((f".{key}", module) for key, module in value._modules.items())
            else:
                yield f".{name}", child
