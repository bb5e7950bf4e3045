"""Trials to rows and back, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table

from petra.core.errors import PetraError, StoreError
from petra.core.measurement import Measurement
from petra.core.objective import Metrics
from petra.core.text import printable
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.store import checked
from petra.store.checked import DAMAGE_HINT, to_json
from petra.store.schema import CHECKSUM, TRIALS, petra_version
from petra.store.seal import note_checksum, trial_checksum
from petra.store.traces import StoredTraces, write_traces

Row = Mapping[Any, Any]
# What a row that petra did not write makes a reader raise.
DEFECTS = (KeyError, TypeError, ValueError, AttributeError, PetraError)


def study_row(config: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a study that begins now."""
    return {
        "petra_version": petra_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": to_json(dict(config), where="the study's configuration"),
        "host": to_json(dict(host), where="the description of the host"),
    }


def trial_row(trial: Trial, measured: Iterable[Row] = ()) -> dict[str, Any]:
    """The row of `trials`, with the checksum of it and of its rows of `measurements`. Raises
    StoreError when `read_trial` would not take it back.
    """
    where = f"trial {trial.number}"
    failure = trial.failure
    row = {
        "number": trial.number,
        "status": trial.status.value,
        "failure_stage": kept_text(failure.stage) if failure else None,
        "failure_kind": kept_text(failure.kind) if failure else None,
        "failure_message": kept_text(failure.message) if failure else None,
        "failure_peak_memory_mb": float(failure.peak_memory_mb) if failure else None,
        "trace": write_traces(trial.trace, where=f"{where}: trace"),
        "artifact": kept_text(trial.artifact),
        "parity": to_json(dict(trial.parity), where=f"{where}: parity"),
        "seconds": float(trial.seconds),
        "finished_at": float(trial.finished_at),
    }
    try:
        len(_trial(_proposal_of(trial), row, ()).trace)
    except DEFECTS as error:
        raise StoreError(f"{where} cannot be stored: {error}", hint=_NUMBERS_HINT) from error
    return {**row, CHECKSUM: trial_checksum(row, measured)}


def measurement_rows(number: int, split: str, metrics: Metrics) -> list[dict[str, Any]]:
    """Rows of `measurements`. Raises StoreError for NaN, infinities and numbers too large to
    compute with: a trial without a number has failed.
    """
    rows = []
    for position, (metric, m) in enumerate(metrics.items()):
        row = {"number": number, "split": split, "metric": metric, "position": position}
        # NumPy's scalars are not what database drivers call numbers.
        numbers = {"mean": float(m.mean), "stderr": float(m.stderr), "n": int(m.n)}
        rows.append({**row, **numbers, "unit": m.unit, "host": m.host})
        try:
            _measurement(rows[-1])
        except DEFECTS as error:
            where = f"trial {number}: {split}"
            raise StoreError(f"{where}: {error}", hint=_NUMBERS_HINT) from error
    return rows


_NUMBERS_HINT = "only finite numbers are stored; a trial without one is a failed trial"


def read_trial(
    proposal: Proposal, row: Row, measurements: Iterable[Row], *, table: Table = TRIALS
) -> Trial:
    """The trial of `proposal` that `trial_row` and `measurement_rows` wrote to `table`.

    Raises StoreError when the row makes no sense or is not the one its checksum was made of. Rows
    of the first schema have none.
    """
    measured = list(measurements)
    try:
        if CHECKSUM in row and row[CHECKSUM] != trial_checksum(row, measured, table=table):
            raise ValueError(OTHER)
        return _trial(proposal, row, measured)
    except DEFECTS as error:
        raise damaged("trial", row, error) from error


OTHER = "it is not what was written: its checksum is another"


def damaged(what: str, row: Row, error: Exception) -> StoreError:
    """That a row is not as petra wrote it."""
    where, message = printable(row["number"]), printable(str(error))
    return StoreError(f"{what} {where}: the stored row is damaged: {message}", hint=DAMAGE_HINT)


def _proposal_of(trial: Trial) -> Proposal:
    return Proposal(trial.number, trial.pipeline, trial.origin, trial.fidelity)


def _trial(proposal: Proposal, row: Row, measurements: Iterable[Row]) -> Trial:
    if checked.whole(row["number"], "number") != proposal.number:
        raise ValueError("it is not that of its proposal")
    metrics: dict[str, dict[str, Measurement]] = {"val": {}, "test": {}}
    for m in measurements:
        metrics[m["split"]][m["metric"]] = _measurement(m)
    return proposal.ended(
        TrialStatus(row["status"]),
        metrics=metrics["val"],
        test=metrics["test"],
        failure=_failure(row),
        trace=StoredTraces(checked.text(row["trace"], "trace"), f"trial {proposal.number}"),
        artifact=checked.relative_path(row["artifact"], "artifact"),
        parity=_parity(row["parity"]),
        seconds=checked.number(row["seconds"], "seconds", negative=False),
        finished_at=checked.number(row["finished_at"], "finished_at", negative=False),
    )


def _measurement(row: Row) -> Measurement:
    name = checked.text(row["metric"], "metric")
    checked.whole(row["position"], f"position of {name}")
    return Measurement(
        checked.number(row["mean"], name),
        checked.number(row["stderr"], f"stderr of {name}", negative=False),
        checked.whole(row["n"], f"n of {name}"),
        checked.text(row["unit"], f"unit of {name}"),
        checked.text(row["host"], f"host of {name}"),
    )


def _failure(row: Row) -> Failure | None:
    names = ("failure_stage", "failure_kind", "failure_message", "failure_peak_memory_mb")
    stage, kind, message, memory = (row[name] for name in names)
    if stage is kind is message is memory is None:
        return None
    return Failure(
        checked.text(stage, names[0]),
        checked.text(kind, names[1]),
        checked.text(message, names[2]),
        checked.number(memory, names[3], negative=False),
    )


def _parity(value: object) -> dict[str, float]:
    found = checked.mapping(checked.from_json(value, "parity"), "parity")
    return {name: checked.number(error, f"parity.{name}") for name, error in found.items()}


def kept_text(value: str) -> str:
    """`value` as databases take it."""
    # Error messages may quote file names that are not UTF-8, which no database takes; they are kept
    # in escaped form.
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def note_row(name: str, value: object) -> dict[str, str]:
    """The row of a note. Raises StoreError for what is not JSON data."""
    text = to_json(value, where=f"note {name!r}")
    return {"name": name, "value": text, CHECKSUM: note_checksum(name, text)}


def note_value(row: Row) -> Any:
    """The value of a note. ValueError for what is not as it was written."""
    if CHECKSUM in row and row[CHECKSUM] != note_checksum(row["name"], row["value"]):
        raise ValueError(OTHER)
    return checked.from_json(row["value"], "its value")
