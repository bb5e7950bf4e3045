"""What a worker may say: JSON of plain values and petra's own records.

Reading it cannot run anything.

A stage is somebody else's code, and so is what it returns; the process that keeps the study neither
unpickles it nor imports what it names.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import json
from typing import Any

from petra.core.errors import PetraError, rebuild_error
from petra.workers.failures import Unreadable, WorkerError, WorkerFailure

_RECORDS = ("petra.core.", "petra.execute.")  # where the frozen dataclasses are that may travel


def encode(value: object) -> bytes:
    """`value` as it travels: None, bools, numbers, strings, bytes, lists, tuples, dicts, records
    and errors of petra's.

    Raises TypeError for anything else, subclasses of the plain types included, and RecursionError
    for what holds itself.
    """
    return json.dumps(_plain(value), separators=(",", ":")).encode()


def decode(body: bytes) -> Any:
    """Inverse of `encode`, for bytes from anywhere. Raises Unreadable, and nothing else, for what
    it did not write.
    """
    try:
        return _value(json.loads(body))
    except Exception as error:  # noqa: BLE001 - the sender chose what goes wrong
        raise Unreadable(
            f"the worker's message is no plain record: {type(error).__name__}: {error}"[:500]
        ) from None


def _plain(value: object) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_plain(item) for item in value]  # type: ignore[attr-defined]
    if kind is tuple:
        return {"tuple": [_plain(item) for item in value]}  # type: ignore[attr-defined]
    if kind is dict:
        pairs: Any = value.items()  # type: ignore[attr-defined]
        return {"dict": [[_plain(k), _plain(v)] for k, v in pairs]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}  # type: ignore[arg-type]
    if isinstance(value, PetraError) and _is_error(kind):
        return {"error": [kind.__module__, kind.__qualname__, _plain(dict(vars(value)))]}
    if _is_record(kind):
        names = [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]
        fields = {name: getattr(value, name) for name in names}
        return {"record": [kind.__module__, kind.__qualname__, _plain(fields)]}
    raise TypeError(
        f"a {kind.__module__}.{kind.__qualname__} is no plain record and cannot leave a worker"
    )


def _value(data: Any) -> Any:
    if isinstance(data, list):
        return [_value(item) for item in data]
    if not isinstance(data, dict):
        return data
    ((tag, content),) = data.items()
    if tag == "tuple":
        return tuple(_value(item) for item in content)
    if tag == "dict":
        return {_value(k): _value(v) for k, v in content}
    if tag == "bytes":
        return base64.b64decode(content)
    module, name, fields = content
    cls = _class(module, name)
    if tag == "error" and _is_error(cls):
        return rebuild_error(cls, _value(fields))
    if tag == "record" and _is_record(cls):
        return cls(**_value(fields))
    raise ValueError(f"{module}.{name} may not travel")


def _class(module: str, name: str) -> type:
    """A class of petra's. Raises ValueError for other modules, before anything is imported."""
    if not module.startswith("petra.") or not name.isidentifier():
        raise ValueError(f"{module}.{name} is not of petra")
    found = getattr(importlib.import_module(module), name)
    if not isinstance(found, type) or found.__module__ != module:
        raise ValueError(f"{module}.{name} is no class of that module")
    return found


def _is_error(cls: type) -> bool:
    """Errors of petra's own; of those about workers only what a worker itself may claim."""
    if not issubclass(cls, PetraError) or not cls.__module__.startswith("petra."):
        return False
    return not issubclass(cls, WorkerError) or cls is WorkerFailure


def _is_record(cls: type) -> bool:
    known = cls.__module__.startswith(_RECORDS) and dataclasses.is_dataclass(cls)
    return known and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
