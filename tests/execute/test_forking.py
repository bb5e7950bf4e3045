"""Every call begins with the process as it was; where forks would share: none."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
from worker_calls import Note

from petra.workers.failures import WorkerFailure
from petra.workers.isolate import Worker

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import test modules


def state(payload: Any, note: Note) -> Any:
    """Whatever of the process can be looked at."""
    import warnings

    return {
        "payload": payload,
        "directory": str(Path.cwd()),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "threads": threading.active_count(),
        "warnings": repr(warnings.filters),
        "umask": os.umask(0o022),
        "loads": pickle.loads.__module__,
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "children": len(psutil.Process().children()),
        "random": repr(hash(str(sys.flags))),
    }


def spoil(payload: Any, note: Note) -> list[int]:
    import warnings

    payload["numbers"].clear()
    os.chdir("/")
    os.environ.clear()
    sys.path.clear()
    warnings.simplefilter("error")
    os.umask(0o777)
    pickle.loads = len  # type: ignore[assignment]
    files = [open(os.devnull) for _ in range(50)]  # noqa: PTH123, SIM115
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    middle = os.fork()
    if not middle:
        os.setsid()
        time.sleep(1000)
    return [child.pid, len(files)]


def test_a_call_sees_nothing_of_the_one_before(shared: Worker) -> None:
    before = shared.call(state)
    child, _ = shared.call(spoil)
    assert shared.call(state) == before
    assert not psutil.pid_exists(child)
    assert "ended 2 processes that the call left behind" in shared.log.read_text()


def test_what_is_prepared_is_done_once(tmp_path: Path) -> None:
    def prepare(payload: list[int]) -> tuple[int, int]:
        payload.append(1)
        return sum(payload), os.getpid()

    with Worker(tmp_path / "log", threads=1) as worker:
        worker.start([3], prepare)
        seen = [worker.call(lambda payload, note: (*payload, os.getppid())) for _ in range(2)]
    assert [total for total, _, _ in seen] == [4, 4]
    assert {prepared for _, prepared, _ in seen} == {parent for _, _, parent in seen}


class Threaded:
    def __reduce__(self) -> Any:
        return (_begin_thread, ())


def _begin_thread() -> str:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return "payload"


class OpenFile:
    def __init__(self, path: str) -> None:
        self.path = path

    def __getstate__(self) -> str:
        return self.path

    def __setstate__(self, path: str) -> None:
        self.file = open(path)  # noqa: PTH123, SIM115


@pytest.mark.parametrize("kind", ["threads", "open files"])
def test_where_forks_would_share_every_call_has_a_process_of_its_own(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "data").write_text("text")
    payload = Threaded() if kind == "threads" else OpenFile(str(tmp_path / "data"))

    def read(payload: Any, note: Note) -> Any:
        return (
            (payload.file.read() if kind == "open files" else payload),
            os.getpid(),
            os.environ["OMP_NUM_THREADS"],
        )

    with Worker(tmp_path / "log", threads=2) as worker:
        worker.start(payload)
        first, second = worker.call(read), worker.call(read)
        with pytest.raises(WorkerFailure, match="ZeroDivisionError"):
            worker.call(lambda payload, note: 1 / 0)
    assert first[0] == second[0] == ("text" if kind == "open files" else "payload")
    assert first[1] != second[1]
    assert first[2] == "2"
    assert kind in worker.log.read_text()


def test_a_fork_of_the_calls_own_does_not_speak(shared: Worker) -> None:
    def twice(payload: Any, note: Note) -> int:
        note("before")
        os.fork()
        note("after")
        return 1

    notes: list[object] = []
    assert shared.call(twice, on_note=notes.append) == 1
    assert notes == ["before", "after"]
    assert shared.call(lambda payload, note: 2) == 2


def test_temporary_names_differ_between_forks(shared: Worker) -> None:
    names = {shared.call(lambda payload, note: tempfile.mktemp()) for _ in range(2)}
    assert len(names) == 2
