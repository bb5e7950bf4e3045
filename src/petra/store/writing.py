"""What is written, each in one transaction with the checksums that cover it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection, exc, insert, select, update

from petra.core.errors import StoreError
from petra.core.measurement import Measurement
from petra.core.metric import describe
from petra.core.objective import Metrics
from petra.core.trial import Proposal, Trial
from petra.store.proposals import proposal_row
from petra.store.reading import read_proposals, read_trials, rows_of_trials
from petra.store.records import measurement_rows, note_row, trial_row
from petra.store.schema import CHECKSUM, MEASUREMENTS, NOTES, PROPOSALS, SCHEMA_VERSION, TRIALS
from petra.store.seal import MODULUS, content, trial_checksum


class Writing:
    """One transaction that writes, and what the study's checksum covers as it goes on.

    Whatever it refuses is for the caller to roll back.
    """

    def __init__(self, connection: Connection, content: int) -> None:
        self.connection = connection
        self.content = content

    def proposal(self, proposal: Proposal) -> None:
        """Add a proposal. Raises StoreError when its number, or its pipeline at its fidelity, is
        there.
        """
        row = proposal_row(proposal)
        with _distinct(f"proposal {proposal.number}"):
            self.connection.execute(insert(PROPOSALS), row)
        self._replaced(proposal.number, None, row[CHECKSUM])

    def trial(self, trial: Trial) -> None:
        """Add a trial, and what it is the result of unless that is there. Raises StoreError
        when its number is there, when it is not the result of its proposal or cannot be kept.
        """
        measured = [
            *measurement_rows(trial.number, "val", trial.metrics),
            *measurement_rows(trial.number, "test", trial.test),
        ]
        row = trial_row(trial, measured)
        proposal = Proposal(trial.number, trial.pipeline, trial.origin, trial.fidelity)
        found = read_proposals(self.connection, SCHEMA_VERSION, trial.number)
        if not found:
            self.proposal(proposal)
        with _distinct(f"trial {trial.number}"):
            self.connection.execute(insert(TRIALS), row)
        if found and replace(found[0], told=()) != proposal:
            raise StoreError(
                f"trial {trial.number} is not the result of its proposal",
                hint=f"proposed: {found[0].pipeline}; got: {trial.pipeline}",
            )
        if measured:
            self.connection.execute(insert(MEASUREMENTS), measured)
        self._replaced(trial.number, None, row[CHECKSUM])

    def test(self, number: int, metrics: Metrics) -> None:
        """Add measurements on the test split, or put others in place of those that were timed.

        Raises StoreError when there is no such trial, or it has some and any that was not timed is
        another one.
        """
        added = measurement_rows(number, "test", metrics)
        stored = read_trials(self.connection, SCHEMA_VERSION, number)
        before = stored[0].test if stored else {}
        if not stored or (before and _untimed(before) != _untimed(metrics)):
            raise StoreError(
                f"trial {number} is not stored, or has been measured on the test split already",
                hint="ask `trial(number).test` first",
            )
        row, measured = rows_of_trials(self.connection, SCHEMA_VERSION, number)[0]
        kept = [m for m in measured if m["split"] != "test"]
        checksum = trial_checksum(row, [*kept, *added])
        if before:
            of_test = (MEASUREMENTS.c.number == number) & (MEASUREMENTS.c.split == "test")
            self.connection.execute(MEASUREMENTS.delete().where(of_test))
        if added:
            self.connection.execute(insert(MEASUREMENTS), added)
        change = update(TRIALS).where(TRIALS.c.number == number)
        self.connection.execute(change.values({CHECKSUM: checksum}))
        self._replaced(number, row[CHECKSUM], checksum)

    def note(self, name: str, value: object) -> None:
        """Put a note in the place of the one of this name."""
        row, this = note_row(name, value), NOTES.c.name == name
        old = self.connection.execute(select(NOTES.c[CHECKSUM]).where(this)).scalar()
        self.connection.execute(NOTES.delete().where(this))
        self.connection.execute(insert(NOTES), row)
        self._replaced(name, old, row[CHECKSUM])

    def _replaced(self, key: int | str, old: str | None, new: str) -> None:
        """The row `key` has the checksum `new`; before it had `old`, or was not there."""
        gone = content([(key, old)]) if old is not None else 0
        self.content = (self.content + content([(key, new)]) - gone) % MODULUS


def _untimed(metrics: Metrics) -> dict[str, Measurement]:
    return {name: m for name, m in metrics.items() if not describe(name).timed}


@contextmanager
def _distinct(what: str) -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError as error:
        raise StoreError(
            f"{what} or its pipeline is stored already",
            hint="a pipeline runs once at a fidelity",
        ) from error
