"""Trials to rows and back, exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from petra.core.errors import StoreError
from petra.core.measurement import Measurement
from petra.core.objective import Metrics
from petra.core.pipeline import Pipeline
from petra.core.trial import Failure, Origin, StageTrace, Trial, TrialStatus

Row = Mapping[Any, Any]
DEFECTS = (KeyError, TypeError, ValueError, AttributeError)  # what a row that petra did not write makes a reader raise


def to_json(value: object, *, where: str) -> str:
    """JSON text that `json.loads` turns back into `value`; refuses what JSON would change or cannot say."""
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        same = json.loads(text) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{where} cannot be stored: {error}", hint=_JSON_HINT) from error
    if not same:
        raise StoreError(f"{where} would not read back as it is", hint=_JSON_HINT)
    return text


_JSON_HINT = "allowed: None, bools, ints, finite floats, strings, lists, dicts with string keys"


def trial_row(trial: Trial) -> dict[str, Any]:
    """The row of `trials`. Raises StoreError when a number is not finite or a trace is not JSON."""
    where = f"trial {trial.number}"
    if trial.number < 0:
        raise StoreError(f"{where}: trial numbers start at 0")
    for name in ("seconds", "finished_at"):
        _check_finite(getattr(trial, name), where=f"{where}: {name}")
    failure = trial.failure
    if failure:
        _check_finite(failure.peak_memory_mb, where=f"{where}: failure.peak_memory_mb")
    traces = [_trace_dict(t) for t in trial.trace]
    return {
        "number": trial.number,
        "key": trial.pipeline.key,
        "status": trial.status.value,
        "pipeline": to_json(trial.pipeline.as_list(), where=f"{where}: pipeline"),
        "move": _text(trial.origin.move),
        "parent": trial.origin.parent,
        "failure_stage": _text(failure.stage) if failure else None,
        "failure_kind": _text(failure.kind) if failure else None,
        "failure_message": _text(failure.message) if failure else None,
        "failure_peak_memory_mb": float(failure.peak_memory_mb) if failure else None,
        "trace": to_json(traces, where=f"{where}: trace"),
        "artifact": _text(trial.artifact),
        "parity": to_json(dict(trial.parity), where=f"{where}: parity"),
        "seconds": float(trial.seconds),
        "finished_at": float(trial.finished_at),
    }


def measurement_rows(number: int, split: str, metrics: Metrics) -> list[dict[str, Any]]:
    """Rows of `measurements`. Raises StoreError for NaN and infinities: a trial without a number has failed."""
    rows = []
    for position, (metric, m) in enumerate(metrics.items()):
        where = f"trial {number}: {split} {metric}"
        _check_finite(m.mean, where=where)
        _check_finite(m.stderr, where=f"{where} stderr")
        row = {"number": number, "split": split, "metric": metric, "position": position}
        # NumPy's scalars are not what database drivers call numbers.
        numbers = {"mean": float(m.mean), "stderr": float(m.stderr), "n": int(m.n)}
        rows.append({**row, **numbers, "unit": m.unit, "host": m.host})
    return rows


def read_trial(row: Row, measurements: Iterable[Row]) -> Trial:
    """The trial that `trial_row` and `measurement_rows` wrote. Raises StoreError when the row makes no sense."""
    try:
        pipeline = Pipeline.from_list(json.loads(row["pipeline"]))
        if pipeline.key != row["key"]:
            raise ValueError("the pipeline is not the one its key was made from")
        metrics: dict[str, dict[str, Measurement]] = {"val": {}, "test": {}}
        for m in measurements:
            metrics[m["split"]][m["metric"]] = Measurement(m["mean"], m["stderr"], m["n"], m["unit"], m["host"])
        failure = None
        if row["failure_kind"] is not None:
            failure = Failure(
                row["failure_stage"], row["failure_kind"], row["failure_message"], row["failure_peak_memory_mb"]
            )
        return Trial(
            number=row["number"],
            pipeline=pipeline,
            status=TrialStatus(row["status"]),
            origin=Origin(row["move"], row["parent"]),
            metrics=metrics["val"],
            test=metrics["test"],
            failure=failure,
            trace=read_traces(json.loads(row["trace"])),
            artifact=row["artifact"],
            parity=json.loads(row["parity"]),
            seconds=row["seconds"],
            finished_at=row["finished_at"],
        )
    except DEFECTS as error:
        raise StoreError(
            f"trial {row['number']}: the stored row is damaged: {error}",
            hint="the database was changed by something other than petra; restore it from a copy",
        ) from error


def _trace_dict(trace: StageTrace) -> dict[str, Any]:
    plain = {f.name: getattr(trace, f.name) for f in fields(trace)}
    return {**plain, "touched": list(trace.touched), "skipped": dict(trace.skipped), "details": dict(trace.details)}


def write_traces(traces: Sequence[StageTrace], *, where: str) -> str:
    """JSON text of stage traces, for `read_traces`."""
    return to_json([_trace_dict(t) for t in traces], where=where)


def read_traces(items: Sequence[Mapping[str, Any]]) -> tuple[StageTrace, ...]:
    """Traces from their JSON form."""
    return tuple(StageTrace(**{**item, "touched": tuple(item["touched"])}) for item in items)


def _check_finite(value: float, *, where: str) -> None:
    if not math.isfinite(value):
        raise StoreError(
            f"{where} is {value}", hint="only finite numbers are stored; a trial without one is a failed trial"
        )


def _text(value: str) -> str:
    # Error messages may quote file names that are not UTF-8, which no database takes; they are kept in escaped form.
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
