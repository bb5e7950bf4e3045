"""Studies of earlier schemas are read as they are, and upgraded when they are written to."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from stored import make_trial, read_all

from petra.core.errors import StoreError
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import (
    FULL,
    Failure,
    Origin,
    Proposal,
)
from petra.store import layout
from petra.store.store import Store


def earlier(directory: Path, version: int) -> Path:
    """A study that petra 0.1.0 wrote, in schema version 2, or as it was before checksums."""
    directory.mkdir()
    raw = sqlite3.connect(directory / layout.DATABASE_FILE)
    raw.executescript((Path(__file__).parent / "schema_2.sql").read_text())
    with raw:
        if version == 1:
            for table in ("study", "trials", "notes"):
                raw.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
            raw.execute("UPDATE study SET schema_version = 1")
    raw.close()
    return directory


@pytest.mark.parametrize("version", [1, 2])
def test_a_study_of_an_earlier_schema_is_read_and_brought_up_to_date(
    tmp_path: Path, version: int
) -> None:
    directory = earlier(tmp_path / "study", version)
    before = (directory / layout.DATABASE_FILE).read_bytes()
    with Store.open(directory, write=False) as reader:
        trials, proposals, config = reader.trials(), reader.proposals(), reader.config
        assert reader.trial(3) == trials[2]
        assert reader.note("stop_reason") == "the budget of 3 trials is spent"
    assert (directory / layout.DATABASE_FILE).read_bytes() == before
    assert [t.number for t in trials] == [0, 1, 3]
    assert [t.origin for t in trials] == [
        Origin(("baseline",)),
        Origin(("initial",)),
        Origin(("perturb", "add"), 1),
    ]
    assert {t.fidelity for t in trials} == {FULL}
    assert (trials[0].test["quality"].mean, trials[1].trace[0].touched) == (0.88, ("a",))
    assert trials[2].failure == Failure("export", "ExportError", "cannot", 12.5)
    assert proposals == [Proposal(t.number, t.pipeline, t.origin) for t in trials]
    with Store.open(directory, write=True) as upgraded:
        assert (upgraded.trials(), upgraded.proposals()) == (trials, proposals)
        upgraded.add(make_trial(4, pipeline=Pipeline((StageSpec("half"),))))
    with Store.open(directory, write=False) as reader:
        assert (reader.trials()[:3], reader.proposals()[:3]) == (trials, proposals)
        assert (reader.note("stop_reason"), reader.config) == (
            "the budget of 3 trials is spent",
            config,
        )
    raw = sqlite3.connect(directory / layout.DATABASE_FILE)
    with raw:
        raw.execute("UPDATE measurements SET mean = 0.5")
    raw.close()
    with pytest.raises(StoreError, match="damaged"):
        read_all(directory)


@pytest.mark.parametrize(
    ("version", "statement", "words"),
    [
        (1, "UPDATE trials SET status = 'finished' WHERE number = 0", "trial 0: the stored row"),
        (2, "UPDATE trials SET move = 'add' WHERE number = 3", "trial 3: the stored row"),
        (2, "DELETE FROM trials WHERE number = 3", "not what was written"),
    ],
)
def test_an_upgrade_that_meets_damage_changes_nothing(
    tmp_path: Path, version: int, statement: str, words: str
) -> None:
    directory = earlier(tmp_path / "study", version)
    raw = sqlite3.connect(directory / layout.DATABASE_FILE)
    with raw:
        raw.execute(statement)
    raw.close()
    for _ in range(2):
        with pytest.raises(StoreError, match=words):
            Store.open(directory, write=True)
