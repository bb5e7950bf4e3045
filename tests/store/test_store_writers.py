"""One writer, any number of readers, and nothing lost when the writer is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from stored import CONFIG, HOST, make_trial

from petra.core.errors import StoreError
from petra.store import database, layout, schema
from petra.store.store import Store


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
