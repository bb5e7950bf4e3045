"""What is written, each in one transaction with the checksums that cover it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection, exc, insert, select, update

from petra.core.errors import StoreError
from petra.core.objective import Metrics
from petra.core.trial import Proposal, Trial
from petra.store.points import HEAD, Block, block_name
from petra.store.proposals import proposal_row
from petra.store.reading import read_note, read_proposals, read_trials, rows_of_trials
from petra.store.records import measurement_rows, note_row, trial_row
from petra.store.schema import CHECKSUM, MEASUREMENTS, NOTES, PROPOSALS, SCHEMA_VERSION, TRIALS
from petra.store.seal import MODULUS, content, trial_checksum
from petra.store.sealing import Content, head_value, seal


class Writing:
    """One transaction that writes, and what the study's checksum covers as it goes on.

    Whatever it refuses is for the caller to roll back.
    """

    def __init__(self, connection: Connection, content: Content) -> None:
        self.connection = connection
        self.content = content
        self._blocks: dict[str, Block] = {}  # of points, changed and not written yet

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
        found = read_proposals(self.connection, SCHEMA_VERSION, [trial.number])
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
        self.point(trial)

    def test(self, number: int, metrics: Metrics) -> None:
        """Add measurements on the test split.

        Raises StoreError when there is no such trial, or it has some.
        """
        added = measurement_rows(number, "test", metrics)
        stored = read_trials(self.connection, SCHEMA_VERSION, [number])
        if not stored or stored[0].test:
            raise StoreError(
                f"trial {number} is not stored, or has been measured on the test split already",
                hint="ask `trial(number).test` first",
            )
        row, measured = rows_of_trials(self.connection, SCHEMA_VERSION, [number])[0]
        checksum = trial_checksum(row, [*measured, *added])
        if added:
            self.connection.execute(insert(MEASUREMENTS), added)
        change = update(TRIALS).where(TRIALS.c.number == number)
        self.connection.execute(change.values({CHECKSUM: checksum}))
        self._replaced(number, row[CHECKSUM], checksum)
        self._block(number).put_test(number, metrics)

    def point(self, trial: Trial) -> None:
        """Keep what the front needs of a stored trial."""
        self._block(trial.number).put(trial)

    def finish(self) -> None:
        """Write what was gathered; the last call of a transaction."""
        for name, block in self._blocks.items():
            self.note(name, block.as_dict())
        self._blocks.clear()
        self.note(HEAD, head_value(self.content))

    def _block(self, number: int) -> Block:
        name = block_name(number)
        if name not in self._blocks:
            kept = read_note(self.connection, SCHEMA_VERSION, name)
            self._blocks[name] = Block() if kept is None else Block.from_dict(kept)
        return self._blocks[name]

    def note(self, name: str, value: object) -> None:
        """Put a note in the place of the one of this name."""
        row = note_row(name, value)
        self.forget(name)
        self.connection.execute(insert(NOTES), row)
        self._replaced(name, None, row[CHECKSUM])

    def forget(self, name: str) -> None:
        """Take a note away."""
        this = NOTES.c.name == name
        old = self.connection.execute(select(NOTES.c[CHECKSUM]).where(this)).scalar()
        if old is not None:
            self.connection.execute(NOTES.delete().where(this))
            self._replaced(name, old, None)

    def _replaced(self, key: int | str, old: str | None, new: str | None) -> None:
        """The row `key` has the checksum `new`; before it had `old`. None: it is not there."""
        gone, come = (0 if mark is None else content([(key, mark)]) for mark in (old, new))
        change = come - gone
        which = "notes" if isinstance(key, str) else "rows"
        changed = (getattr(self.content, which) + change) % MODULUS
        self.content = replace(self.content, **{which: changed})


def rebuild_points(connection: Connection, content: Content) -> Content:
    """Keep the points of what is stored by a petra that kept none, in the caller's transaction."""
    writing = Writing(connection, content)
    for name in connection.execute(select(NOTES.c.name)).scalars().all():
        if name.startswith(f"{HEAD} "):
            writing.forget(name)
    for trial in read_trials(connection, SCHEMA_VERSION):
        writing.point(trial)
    writing.finish()
    seal(connection, writing.content)
    return writing.content


@contextmanager
def _distinct(what: str) -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError as error:
        raise StoreError(
            f"{what} or its pipeline is stored already",
            hint="a pipeline runs once at a fidelity",
        ) from error
