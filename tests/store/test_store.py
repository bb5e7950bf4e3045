"""The store's promises: exact round trips, nothing lost, one writer, and a clear refusal instead of
a traceback.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petra.core.errors import StoreError
from petra.core.measurement import LARGEST, Measurement
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import (
    FULL,
    Failure,
    Fidelity,
    Origin,
    Proposal,
    StageTrace,
    Trial,
    TrialStatus,
)
from petra.store import database, layout, schema
from petra.store.proposals import proposal_row, read_proposal
from petra.store.records import read_traces, write_traces
from petra.store.store import Store

CONFIG = {
    "seed": 3,
    "objectives": ["quality", "latency"],
    "budget_s": 60.5,
    "note": None,
    "nested": {"é": [1, 2.5]},
}
HOST = {"cpu": "some cpu", "cores": 2}


def test_traces_of_older_stores_are_read() -> None:
    trace = StageTrace("tune", uncached="a graph is code, which is not stored")
    (row,) = json.loads(write_traces([trace], where="here"))
    assert read_traces([row]) == (trace,)
    del row["uncached"]
    assert read_traces([row]) == (replace(trace, uncached=""),)


def make_trial(number: int, **changes: object) -> Trial:
    pipeline = Pipeline((StageSpec("tune", {"epochs": number + 1, "lr": 0.1}),) if number else ())
    metrics = {
        "quality": Measurement(0.9, 0.01, 100, "", "h"),
        "size_bytes": Measurement(1000.0, unit="B"),
    }
    fields = {"pipeline": pipeline, "status": TrialStatus.COMPLETE, "metrics": metrics, **changes}
    return Trial(number=number, **fields)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path):
    with Store.create(tmp_path / "study", CONFIG, HOST) as made:
        yield made


# -- round trips -----------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**62), 2**62)
counts = st.integers(0, 2**62)
numbers = st.floats(-LARGEST, LARGEST)  # what is measured
amounts = st.floats(0, LARGEST)
scalars = st.booleans() | integers | finite | st.text(max_size=20)
json_values = st.recursive(
    st.none() | scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=4)
texts = st.text(max_size=30)
measurements = st.dictionaries(
    st.text(min_size=1, max_size=12),
    st.builds(Measurement, numbers, amounts, counts, texts, texts),
    max_size=4,
)
stages = st.builds(
    StageSpec, st.text(min_size=1, max_size=10), st.dictionaries(texts, scalars, max_size=4)
)
traces = st.builds(
    StageTrace,
    stage=texts,
    touched=st.lists(texts, max_size=3).map(tuple),
    skipped=st.dictionaries(texts, texts, max_size=3),
    params_before=counts,
    params_after=counts,
    seconds=amounts,
    peak_memory_mb=amounts,
    cached=st.booleans(),
    details=json_objects,
)
origins = st.builds(
    Origin, st.lists(texts, max_size=3).map(tuple), st.none() | st.integers(0, 2**40)
)
shares = st.floats(0, 1, exclude_min=True)
fidelities = st.just(FULL) | st.builds(Fidelity, shares, shares, st.booleans())
pipelines = st.lists(stages, max_size=4).map(lambda s: Pipeline(tuple(s)))
trials = st.builds(
    Trial,
    number=st.integers(0, 2**40),
    pipeline=pipelines,
    status=st.sampled_from(TrialStatus),
    origin=origins,
    fidelity=fidelities,
    metrics=measurements,
    test=measurements,
    failure=st.none() | st.builds(Failure, texts, texts, texts, amounts),
    trace=st.lists(traces, max_size=3).map(tuple),
    artifact=st.from_regex(r"(artifacts/[0-9]{1,5}/[a-zé ]{1,9}[.]onnx)?", fullmatch=True),
    parity=st.dictionaries(texts, numbers, max_size=3),
    seconds=amounts,
    finished_at=amounts,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    batch=st.lists(
        trials, min_size=1, max_size=3, unique_by=(lambda t: t.number, lambda t: t.pipeline.key)
    )
)
def test_trials_read_back_exactly(
    batch: list[Trial], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("study")
    with Store.create(directory, {}, {}) as made:
        for trial in batch:
            made.add(trial)
    with Store.open(directory, write=False) as reader:
        read = reader.trials()
        assert read == sorted(batch, key=lambda t: t.number)
        for trial, again in zip(sorted(batch, key=lambda t: t.number), read, strict=True):
            assert list(again.metrics) == list(trial.metrics)
            # repr tells 1 from 1.0 and True, which == does not.
            assert repr(again.trace) == repr(trial.trace)
            assert again.pipeline.canonical() == trial.pipeline.canonical()
            assert reader.trial(trial.number) == trial


@settings(max_examples=100, deadline=None)
@given(
    proposal=st.builds(
        Proposal,
        number=st.integers(0, 2**40),
        pipeline=pipelines,
        origin=origins,
        fidelity=fidelities,
        told=st.lists(st.integers(0, 2**40), max_size=5).map(tuple),
    )
)
def test_proposals_read_back_exactly(proposal: Proposal) -> None:
    assert read_proposal(proposal_row(proposal)) == proposal


def test_a_trial_is_the_result_of_its_proposal(store: Store) -> None:
    trial = make_trial(1)
    proposal = Proposal(1, trial.pipeline, trial.origin, told=(0,))
    store.propose(proposal)
    for wrong in (
        replace(trial, pipeline=make_trial(2).pipeline),
        replace(trial, origin=Origin(("perturb",), 0)),
        replace(trial, fidelity=Fidelity(data=0.5)),
    ):
        with pytest.raises(StoreError, match="not the result of its proposal"):
            store.add(wrong)
    store.add(trial)
    assert (store.trials(), store.proposals()) == ([trial], [proposal])


def test_a_pipeline_runs_once_at_each_fidelity(store: Store) -> None:
    trial = make_trial(1)
    low = Fidelity(epochs=0.25)
    store.add(trial)
    store.add(replace(trial, number=2, fidelity=low))
    for again in (FULL, low):
        with pytest.raises(StoreError, match="stored already"):
            store.propose(Proposal(3, trial.pipeline, fidelity=again))
    assert [t.fidelity for t in store.trials()] == [FULL, low]


def test_an_error_message_that_is_not_unicode_is_kept_escaped(store: Store) -> None:
    name = os.fsdecode(b"w\xff.pt")
    store.add(
        make_trial(
            1, metrics={}, status=TrialStatus.FAILED, failure=Failure("tune", "OSError", name)
        )
    )
    assert store.trial(1).failure == Failure("tune", "OSError", "w\\udcff.pt")


def test_study_facts_and_notes(tmp_path: Path) -> None:
    with Store.create(tmp_path, CONFIG, HOST) as store:
        assert store.note("stop") is None
        store.set_note("stop", {"reason": "budget", "at": 1.5})
        store.set_note("stop", ["again"])
        with pytest.raises(StoreError, match="note 'x' cannot be stored"):
            store.set_note("x", math.nan)
        with pytest.raises(StoreError, match="would not read back"):
            store.set_note("x", {1: "a key JSON would turn into text"})
    with Store.open(tmp_path, write=False) as store:
        assert (store.config, store.host, store.note("stop")) == (CONFIG, HOST, ["again"])


def test_elapsed_sums_sessions(tmp_path: Path) -> None:
    with Store.create(tmp_path, {}, {}) as store:
        time.sleep(0.05)
        first = store.elapsed()
    with Store.open(tmp_path, write=False) as reader:
        closed = reader.elapsed()
        assert closed >= first >= 0.05
        time.sleep(0.02)
        assert reader.elapsed() == closed, "reading is not searching"
    with Store.open(tmp_path, write=True) as store:
        assert store.elapsed() >= closed
        time.sleep(0.05)
        store.add(make_trial(0))
        with Store.open(tmp_path, write=False) as reader:
            assert closed + 0.05 <= reader.elapsed() <= store.elapsed()


def test_the_configuration_can_be_replaced(store: Store) -> None:
    store.set_config({"budget": 2})
    assert store.config == {"budget": 2}
    assert store.host == HOST


def test_exists(tmp_path: Path) -> None:
    assert not Store.exists(tmp_path)
    path = tmp_path / layout.DATABASE_FILE
    path.touch()
    assert not Store.exists(tmp_path), "an interrupted creation"
    path.write_bytes(b"garbage, to be complained about rather than written over")
    assert Store.exists(tmp_path)
    path.unlink()
    Store.create(tmp_path, {}, {}).close()
    assert Store.exists(tmp_path)


# -- what may not be added -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"quality": Measurement(math.nan)}},
        {"metrics": {"quality": Measurement(1.0), "latency_ms": Measurement(1.0, math.inf)}},
        {"test": {"quality": Measurement(-math.inf)}},
        {"seconds": math.inf},
        {"finished_at": math.nan},
        {"parity": {"max_error": math.nan}},
        {"trace": (StageTrace("tune", details={"x": object()}),)},
        {"trace": (StageTrace("tune", details={"x": (1, 2)}),)},
        {"failure": Failure("tune", "E", "m", math.inf)},
    ],
)
def test_what_cannot_be_stored_exactly_is_refused_whole(
    store: Store, changes: dict[str, object]
) -> None:
    with pytest.raises(StoreError, match=r"trial 5"):
        store.add(make_trial(5, **changes))
    assert store.trials() == []


def test_a_number_or_a_pipeline_is_stored_once(store: Store) -> None:
    store.add(make_trial(1))
    for again in (
        make_trial(1, pipeline=Pipeline()),
        make_trial(2, pipeline=make_trial(1).pipeline),
    ):
        with pytest.raises(StoreError, match="stored already"):
            store.add(again)
    assert store.trials() == [make_trial(1)]


def test_the_test_split_is_written_once(store: Store) -> None:
    store.add(make_trial(1))
    confirmed = {"quality": Measurement(0.88, 0.02, 50)}
    store.set_test(1, confirmed)
    assert store.trial(1) == make_trial(1, test=confirmed)
    with pytest.raises(StoreError, match="already"):
        store.set_test(1, {"quality": Measurement(0.99)})
    with pytest.raises(StoreError, match="trial 7 is not stored"):
        store.set_test(7, confirmed)
    with pytest.raises(StoreError, match="nan"):
        store.set_test(1, {"quality": Measurement(math.nan)})
    assert store.trial(1).test == confirmed
    with pytest.raises(StoreError, match="no trial 7"):
        store.trial(7)


# -- writers and readers ---------------------------------------------------------------------------


def python(code: str, *args: object, **keywords: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    path = os.pathsep.join(
        filter(None, [str(Path(schema.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **keywords
    )  # type: ignore[call-overload,no-any-return]


WRITER = """
import sys, itertools
from pathlib import Path
from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Trial, TrialStatus, StageTrace
from petra.store.store import Store
store = Store.open(Path(sys.argv[1]), write=True)
for n in itertools.count(len(store.trials())):
    metrics = {f"m{i}": Measurement(float(n), 0.5, 3) for i in range(10)}
    trace = tuple(StageTrace("tune", touched=("layer",) * 50) for _ in range(3))
    pipeline = Pipeline((StageSpec("s", {"n": n}),))
    store.add(Trial(n, pipeline, TrialStatus.COMPLETE, metrics=metrics, trace=trace))
    print(n, flush=True)
"""


def test_killing_the_writer_loses_no_trial_it_reported(tmp_path: Path) -> None:
    Store.create(tmp_path, CONFIG, HOST).close()
    reported = -1
    for round_ in range(4):
        writer = python(WRITER, tmp_path)
        assert writer.stdout
        for line in writer.stdout:
            reported = int(line)
            if reported >= 7 * (round_ + 1):
                break
        os.kill(writer.pid, signal.SIGKILL)  # in the middle of the next trial, most likely
        rest = writer.communicate()[0].split()
        reported = int(rest[-1]) if rest else reported
        with Store.open(tmp_path, write=False) as store:
            trials = store.trials()
            assert [t.number for t in trials] == list(range(len(trials)))
            # One may be stored whose report was cut off.
            assert len(trials) in (
                reported + 1,
                reported + 2,
            )
            assert all(len(t.metrics) == 10 for t in trials), "no trial without its measurements"
            assert store.elapsed() > 0
    Store.open(tmp_path, write=True).close()


HOLDER = """
import sys, time
from pathlib import Path
from petra.store.store import Store
store = Store.open(Path(sys.argv[1]), write=True)
print("open", flush=True)
time.sleep(60)
"""


def test_one_writer_many_readers(tmp_path: Path) -> None:
    Store.create(tmp_path, CONFIG, HOST).close()
    holder = python(HOLDER, tmp_path)
    assert holder.stdout
    assert holder.stdout.readline() == "open\n"
    try:
        for attempt in (
            lambda: Store.open(tmp_path, write=True),
            lambda: Store.create(tmp_path, {}, {}),
        ):
            with pytest.raises(
                StoreError, match=f"written by process {holder.pid} on {os.uname().nodename}"
            ) as caught:
                attempt()
            assert "wait for it" in caught.value.hint
        with Store.open(tmp_path, write=False) as reader:
            assert reader.config == CONFIG
            with pytest.raises(StoreError, match="not open for writing"):
                reader.add(make_trial(0))
    finally:
        holder.kill()
        holder.communicate()
    with Store.open(tmp_path, write=True) as store:
        store.add(make_trial(0))
        with pytest.raises(StoreError, match=f"process {os.getpid()}"):
            Store.open(tmp_path, write=True)
    with pytest.raises(StoreError, match="not open for writing"):
        store.add(make_trial(1))


def test_a_foreign_program_holding_the_database(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.directory / layout.DATABASE_FILE
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    store.close()
    browser = sqlite3.connect(path, isolation_level=None)
    browser.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked") as caught:
        Store.open(store.directory, write=True)
    assert "another program" in caught.value.hint
    browser.close()
    # The failed attempt has let go of the study's lock.
    Store.open(store.directory, write=True).close()


# -- refusals --------------------------------------------------------------------------------------


def refused(directory: Path, *, write: bool = False) -> StoreError:
    with pytest.raises(StoreError) as caught:
        Store.open(directory, write=write)
    assert caught.value.hint
    assert str(directory) in caught.value.message
    return caught.value


def test_directories_that_are_no_study(tmp_path: Path) -> None:
    assert "no study here" in refused(tmp_path / "absent").message
    assert "no study here" in refused(tmp_path, write=True).message
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_text("not a directory")
    assert "no study here" in refused(tmp_path / "file").message
    with pytest.raises(StoreError, match="cannot be made"):
        Store.create(tmp_path / "file" / "study", {}, {})
    with pytest.raises(StoreError, match="cannot write here"):
        Store.create(Path("/proc/1"), {}, {})
    with pytest.raises(StoreError, match="configuration cannot be stored"):
        Store.create(tmp_path / "new", {"when": object()}, {})


def test_a_study_is_not_created_twice(store: Store) -> None:
    store.add(make_trial(0))
    store.close()
    with pytest.raises(StoreError, match="there is a study here already"):
        Store.create(store.directory, {}, {})
    with Store.open(store.directory, write=False) as again:
        assert again.trials() == [make_trial(0)]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing stops root from writing")
def test_a_directory_without_write_permission(store: Store) -> None:
    store.add(make_trial(0))
    store.close()
    (store.directory / "study.lock").chmod(0o400)
    store.directory.chmod(0o500)
    try:
        refused(store.directory, write=True)
        with Store.open(store.directory, write=False) as reader:
            assert reader.trials() == [make_trial(0)]
    finally:
        store.directory.chmod(0o700)


def test_another_schema_version(store: Store) -> None:
    store.close()
    path = store.directory / layout.DATABASE_FILE
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE study SET schema_version = 99, petra_version = '7.1'")
    raw.close()
    error = refused(store.directory)
    assert "schema version 99, written by petra 7.1" in error.message
    assert f"reads version {schema.SCHEMA_VERSION}" in error.message
    assert "petra 7.1" in error.hint
    refused(store.directory, write=True)


def test_somebody_elses_database(tmp_path: Path) -> None:
    raw = sqlite3.connect(tmp_path / layout.DATABASE_FILE)
    raw.execute("CREATE TABLE recipes (name TEXT)")
    raw.close()
    with pytest.raises(StoreError, match=r"something else.*recipes"):
        Store.open(tmp_path, write=False)
    with pytest.raises(StoreError, match=r"something else.*recipes"):
        Store.create(tmp_path, {}, {})


def test_an_interrupted_creation_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / layout.DATABASE_FILE).touch()
    assert "holds no study" in refused(tmp_path).message
    Store.create(tmp_path, CONFIG, {}).close()
    with Store.open(tmp_path, write=False) as store:
        assert store.config == CONFIG


@pytest.mark.parametrize(
    "damage",
    ["garbage", "garbage inside", "truncated", "short", "half a page", "text", "last page"],
)
def test_damaged_databases(store: Store, damage: str) -> None:
    for n in range(40):
        store.add(make_trial(n, trace=(StageTrace("tune", touched=("layer",) * 100),)))
    store.close()
    path = store.directory / layout.DATABASE_FILE
    data = path.read_bytes()
    path.write_bytes(
        {
            "garbage": os.urandom(len(data)),
            "garbage inside": data[:4096] + b"\xa5" * (len(data) - 4096),
            "truncated": data[: len(data) // 2],
            "short": data[:10],
            "half a page": data[:2048],
            "text": b"hello, world\n" * 100,
            "last page": data[:-4096] + bytes(4096),
        }[damage]
    )
    for write in (False, True):
        refused(store.directory, write=write)


def test_a_row_that_petra_did_not_write(store: Store) -> None:
    store.add(make_trial(1))
    path = store.directory / layout.DATABASE_FILE
    for table, column, value in [
        ("trials", "status", "finished"),
        ("proposals", "pipeline", "[{]"),
        ("proposals", "pipeline", json.dumps([{"stage": "other"}])),
        ("proposals", "moves", '["given", 1]'),
        ("proposals", "fidelity", '{"epochs":2,"data":1,"zero_shot":false}'),
        ("proposals", "told", "[-1]"),
        ("trials", "trace", "[{}]"),
        ("trials", "trace", "null"),
    ]:
        raw = sqlite3.connect(path)
        before = raw.execute(f"SELECT {column} FROM {table}").fetchone()[0]
        with raw:
            raw.execute(f"UPDATE {table} SET {column} = ?", [value])
        what = table.removesuffix("s")
        with pytest.raises(StoreError, match=f"{what} 1: the stored row is damaged"):
            store.trials()
        with raw:
            raw.execute(f"UPDATE {table} SET {column} = ?", [before])
        raw.close()
    assert store.trials() == [make_trial(1)]


# -- other databases -------------------------------------------------------------------------------


def test_a_database_elsewhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'else where?.db'}".replace("?", "%3F")
    with Store.create(tmp_path / "study", CONFIG, HOST, url=url) as store:
        store.add(make_trial(0))
        with pytest.raises(StoreError, match="being written"):
            Store.open(tmp_path / "study", write=True, url=url)
    assert [p.name for p in (tmp_path / "study").iterdir()] == ["study.lock"]
    with Store.open(tmp_path / "study", write=False, url=url) as store:
        assert store.trials() == [make_trial(0)]


@pytest.mark.parametrize(
    "url", ["nonsense", "nosuchdb://host/name", "oracle+oracledb://u:secret@host/name"]
)
def test_unusable_urls(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store.create(tmp_path, {}, {}, url=url)
    assert "secret" not in str(caught.value)
    Store.create(tmp_path, {}, {}).close()  # the failed attempt has let go of the lock


# -- checksums -------------------------------------------------------------------------------------


def edited(store: Store, statement: str) -> None:
    raw = sqlite3.connect(store.directory / layout.DATABASE_FILE)
    with raw:
        raw.execute(statement)
    raw.close()


EDITS = (
    "UPDATE measurements SET mean = mean * 1.001",
    "UPDATE measurements SET n = n + 1",
    "UPDATE measurements SET host = 'another'",
    "UPDATE measurements SET split = 'test'",
    "DELETE FROM measurements WHERE metric = 'size_bytes'",
    "UPDATE trials SET seconds = 2",
    "UPDATE trials SET artifact = 'artifacts/00002/model.onnx'",
    "UPDATE trials SET status = 'infeasible' WHERE number = 1",
    "DELETE FROM trials WHERE number = 2",
    "DELETE FROM proposals WHERE number = 2",
    "DELETE FROM proposals WHERE number = 3",
    "UPDATE proposals SET told = '[]' WHERE number = 3",
    "UPDATE proposals SET parent = 1 WHERE number = 1",
    "UPDATE notes SET value = '2'",
    "DELETE FROM notes",
    "UPDATE notes SET name = 'other'",
    "UPDATE study SET elapsed_s = 5",
    "UPDATE study SET config = '{}'",
    "UPDATE study SET host = '{}'",
    "UPDATE study SET checksum = ''",
)


@pytest.mark.parametrize("statement", EDITS)
def test_an_edited_value_is_noticed(store: Store, statement: str) -> None:
    for n in range(2):
        store.add(make_trial(n))
    store.add(
        make_trial(2, metrics={}, status=TrialStatus.FAILED, failure=Failure("tune", "E", "m"))
    )
    store.propose(Proposal(3, make_trial(3).pipeline, told=(1, 2)))
    store.set_note("stop", 1)
    store.close()
    edited(store, statement)
    with pytest.raises(StoreError, match="damaged") as caught:
        read_all(store.directory)
    assert caught.value.hint


def read_all(directory: Path) -> None:
    with Store.open(directory, write=False) as reader:
        reader.trials(), reader.proposals()
        _ = reader.note("stop"), reader.config, reader.host, reader.elapsed()


HOSTILE_VALUES = (
    "NULL", "-1", "x'00ff'", "'x'", "1e999", "-1e300", "'[' ", "'null'", "'NaN'",
    "'../../etc/passwd'", "'/etc/passwd'",
)  # fmt: skip


@pytest.mark.parametrize("table", ["study", "proposals", "trials", "measurements", "notes"])
def test_values_of_the_wrong_kind_are_refused_where_they_are_read(
    tmp_path: Path, table: str
) -> None:
    """Also with checksums that fit, as a forger would make them."""
    from petra.store.database import connect_file
    from petra.store.sealing import seal_study

    with Store.create(tmp_path / "study", CONFIG, HOST) as made:
        made.add(make_trial(0, artifact="artifacts/00000/model.onnx"))
        made.set_note("stop", {"a": 1})
    path = made.directory / layout.DATABASE_FILE
    whole = path.read_bytes()
    names = [c.name for c in schema.METADATA.tables[table].columns if c.name != schema.CHECKSUM]
    for column, value in ((c, v) for c in names for v in HOSTILE_VALUES):
        path.write_bytes(whole)
        try:
            edited(made, f"UPDATE {table} SET {column} = {value}")
            engine = connect_file(path, write=True)
            with engine.begin() as connection:
                seal_study(connection)
            engine.dispose()
        except Exception:  # noqa: BLE001 - the table does not take it, or it cannot be sealed
            continue
        with contextlib.suppress(StoreError):
            read_all(made.directory)


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


def test_a_version_cannot_be_lowered_to_be_rid_of_the_checksums(store: Store) -> None:
    store.close()
    edited(store, "UPDATE study SET schema_version = 1")
    assert "not of schema version 1" in refused(store.directory).message


def test_a_foreign_file_is_not_changed_by_a_look_at_it(tmp_path: Path) -> None:
    path = tmp_path / layout.DATABASE_FILE
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE recipes (name TEXT)")
    raw.close()
    before = path.read_bytes()
    for attempt in (
        lambda: Store.open(tmp_path, write=True),
        lambda: Store.create(tmp_path, {}, {}),
    ):
        with pytest.raises(StoreError, match="something else"):
            attempt()
    assert path.read_bytes() == before


def test_what_is_changed_behind_a_writer_is_noticed(store: Store) -> None:
    store.add(make_trial(0))
    store.add(make_trial(1))
    edited(store, "DELETE FROM measurements WHERE number = 1")
    edited(store, "DELETE FROM trials WHERE number = 1")
    store.set_note("stop", "budget")  # keeps the checksum up; it does not make one anew
    store.close()
    with pytest.raises(StoreError, match="is not what was written"):
        Store.open(store.directory, write=False)
