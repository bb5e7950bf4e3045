"""What stages did, to JSON and back; read when it is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, overload

from petra.core.errors import StoreError
from petra.core.text import printable
from petra.core.trial import StageTrace
from petra.store import checked
from petra.store.checked import DAMAGE_HINT, to_json


class StoredTraces(Sequence[StageTrace]):
    """Traces as the text that was stored, read when the first of them is looked at: most never
    are. StoreError then for what petra did not write.
    """

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where

    @cached_property
    def _traces(self) -> tuple[StageTrace, ...]:
        try:
            return read_traces(checked.from_json(self._text, "trace"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"{self._where}: the stored trace is damaged: {printable(error)}"
            raise StoreError(message, hint=DAMAGE_HINT) from error

    def __len__(self) -> int:
        return len(self._traces)

    @overload
    def __getitem__(self, at: int) -> StageTrace: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[StageTrace, ...]: ...

    def __getitem__(self, at: int | slice) -> StageTrace | tuple[StageTrace, ...]:
        return self._traces[at]

    def __eq__(self, other: object) -> bool:
        return self._traces == (other._traces if isinstance(other, StoredTraces) else other)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return repr(self._traces)


def _trace_dict(trace: StageTrace) -> dict[str, Any]:
    plain = {f.name: getattr(trace, f.name) for f in fields(trace)}
    return {
        **plain,
        "touched": list(trace.touched),
        "skipped": dict(trace.skipped),
        "details": dict(trace.details),
    }


def write_traces(traces: Sequence[StageTrace], *, where: str) -> str:
    """JSON text of stage traces, for `read_traces`."""
    return to_json([_trace_dict(t) for t in traces], where=where)


def read_traces(items: object) -> tuple[StageTrace, ...]:
    """Traces from their JSON form; a ValueError, TypeError or KeyError for anything else."""
    return tuple(
        _trace(checked.mapping(item, "trace")) for item in checked.sequence(items, "trace")
    )


def _trace(item: Mapping[str, Any]) -> StageTrace:
    touched = checked.sequence(item["touched"], "touched")
    skipped = checked.mapping(item["skipped"], "skipped")
    if not isinstance(item["cached"], bool):
        raise ValueError("cached is neither true nor false")
    read = {
        "stage": checked.text(item["stage"], "stage"),
        "touched": tuple(checked.text(layer, "touched") for layer in touched),
        "skipped": {k: checked.text(v, "skipped") for k, v in skipped.items()},
        "params_before": checked.whole(item["params_before"], "params_before"),
        "params_after": checked.whole(item["params_after"], "params_after"),
        "seconds": checked.number(item["seconds"], "seconds", negative=False),
        "peak_memory_mb": checked.number(item["peak_memory_mb"], "peak_memory_mb", negative=False),
        "cached": item["cached"],
        "details": checked.mapping(item["details"], "details"),
        "uncached": checked.text(item.get("uncached", ""), "uncached"),  # unknown to older stores
    }
    return StageTrace(**{**item, **read})
