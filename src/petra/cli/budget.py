"""The budget of a study that is to go on: what is spent of it, and what a person adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from petra.cli.output import note
from petra.core.errors import ConfigError
from petra.core.text import whole_number

if TYPE_CHECKING:
    from petra.report.record import StudyRecord


def spent_limits(record: StudyRecord) -> dict[str, bool]:
    """Which limits of the budget are reached."""
    budget = record.config.budget
    trials = sum(t.number > 0 for t in record.trials)
    return {
        # Less than all of it where the final measurements took less than was kept for them.
        "time": budget.time is not None
        and (record.elapsed_s >= budget.time or "time budget" in record.stop_reason),
        "trials": budget.trials is not None and trials >= budget.trials,
        "generations": budget.generations is not None and "generations" in record.stop_reason,
        "stagnation": bool(budget.stagnation) and "no progress" in record.stop_reason,
    }


def is_finished(record: StudyRecord) -> bool:
    """Whether running it again would change nothing."""
    return bool(record.stop_reason) and any(spent_limits(record).values())


def extended(
    record: StudyRecord, time: str | None, trials: str | None, confirm: int | None = None
) -> dict[str, Any] | None:
    """The new budget; None when nothing is to change. Limits that are spent are lifted when the
    search is to go on.
    """
    if time is None and trials is None:
        return (
            None if confirm is None else {**record.config.budget.model_dump(), "confirm": confirm}
        )
    from petra.core.quantities import parse_duration

    budget: dict[str, Any] = record.config.budget.model_dump()
    done = sum(t.number > 0 for t in record.trials)
    given: dict[str, Any] = {} if confirm is None else {"confirm": confirm}
    if time is not None:
        try:
            seconds = parse_duration(time.removeprefix("+"))
        except ValueError as error:
            raise ConfigError(f"--time: {error}") from None
        given["time"] = seconds + (
            max(record.elapsed_s, budget["time"] or 0.0) if time.startswith("+") else 0.0
        )
    if trials is not None:
        number = whole_number(trials)
        if number is None or number < 1:
            raise ConfigError(
                f"--trials: got {trials!r}",
                hint="give a total such as 200, or '+50' for fifty more",
            )
        given["trials"] = number + (
            max(done, budget["trials"] or 0) if trials.startswith("+") else 0
        )
    for name, spent in spent_limits(record).items():
        if spent and name not in given:
            note(f"the limit on {name} is spent; it is lifted")
            budget[name] = None
    return budget | given
