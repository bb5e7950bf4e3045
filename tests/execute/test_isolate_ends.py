"""Ends of worker processes: their own deaths, those of a caller's making, and what cannot begin."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from worker_calls import Note, gone, hang, pid_of

from petra.workers.isolate import NotSendable, TimeLimitExceeded, Worker, WorkerDied, WorkerFailure
from petra.workers.process import Process

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import test modules


# -- deaths ----------------------------------------------------------------------------------------


def segfault(payload: Any, note: Note) -> None:
    note(("stage", 1))
    ctypes.string_at(0)


def abort(payload: Any, note: Note) -> None:
    note(("stage", 1))
    os.abort()


def leave(payload: Any, note: Note) -> None:
    note(("stage", 1))
    os._exit(3)


def be_killed(payload: Any, note: Note) -> None:
    note(("stage", 1))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("function", "name", "code"),
    [
        (segfault, "SIGSEGV", -11),
        (abort, "SIGABRT", -6),
        (leave, "", 3),
        (be_killed, "SIGKILL", -9),
    ],
)
def test_deaths_are_reported_and_the_next_call_has_a_new_process(
    shared: Worker, function: Any, name: str, code: int
) -> None:
    with pytest.raises(WorkerDied) as caught:
        shared.call(function)
    assert (caught.value.signal, caught.value.exit_code) == (name, code)
    assert (name or "code 3") in caught.value.message
    assert caught.value.note == ("stage", 1)
    assert ("out of memory" in caught.value.hint) == (name == "SIGKILL")
    assert shared.call(lambda payload, note: payload) == {"numbers": [1, 2, 3]}, (
        "the payload as it was sent"
    )


def test_a_death_between_calls_goes_unnoticed(shared: Worker) -> None:
    pid = shared.call(pid_of)
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    assert shared.call(pid_of) != pid


def test_descendants_do_not_survive(shared: Worker) -> None:
    def orphan(payload: Any, note: Note) -> None:
        note(subprocess.Popen(["sleep", "100"]).pid)
        os._exit(0)

    def fork_and_hang(payload: Any, note: Note) -> None:
        pid = os.fork()  # holds the worker's pipe open
        if pid:
            note(pid)
        time.sleep(100)

    with pytest.raises(WorkerDied) as died:
        shared.call(orphan)
    assert gone(died.value.note)  # type: ignore[arg-type]
    with pytest.raises(TimeLimitExceeded) as late:
        shared.call(fork_and_hang, time_limit_s=0.5)
    assert gone(late.value.note)  # type: ignore[arg-type]


# -- misuse and interruptions ----------------------------------------------------------------------


def test_an_interruption_here_ends_the_call_there(shared: Worker) -> None:
    def interrupt(note: object) -> None:
        raise KeyboardInterrupt

    pid = shared.call(pid_of)
    with pytest.raises(KeyboardInterrupt):
        shared.call(hang, on_note=interrupt)
    assert gone(pid)
    assert shared.call(pid_of) != pid


def test_what_cannot_be_sent(shared: Worker, tmp_path: Path) -> None:
    with pytest.raises(NotSendable, match="function or its arguments"):
        shared.call(pid_of, (i for i in range(3)))
    with pytest.raises(NotSendable, match=r"model, the data.*cannot pickle"):
        Worker(tmp_path / "log", threads=1).start(threading.Lock())
    with pytest.raises(RuntimeError, match=r"Worker.start"):
        Worker(tmp_path / "log", threads=1).call(pid_of)


class Explosive:
    """Cannot be unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (eval, ("1/0",))


def test_a_payload_that_cannot_be_unpickled(tmp_path: Path) -> None:
    with Worker(tmp_path / "log", threads=1) as worker:
        worker.start(Explosive())
        for _ in range(2):
            with pytest.raises(WorkerFailure, match="ZeroDivisionError"):
                worker.call(pid_of)


def test_close_from_another_thread(tmp_path: Path) -> None:
    worker = Worker(tmp_path / "log", threads=1)
    worker.start(None)
    pid = worker.call(pid_of)
    threading.Timer(0.3, worker.close).start()
    with pytest.raises(WorkerDied) as caught:
        worker.call(hang)
    assert "closed" in caught.value.hint
    assert gone(pid)
    with pytest.raises(WorkerDied):
        worker.call(pid_of)
    worker.close()


def test_a_call_while_another_thread_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(tmp_path / "log", threads=1)
    worker.start(None)
    disposing, finish = threading.Event(), threading.Event()
    dispose = Process.dispose

    def slowly(process: Process) -> None:
        disposing.set()
        finish.wait(30)
        dispose(process)

    monkeypatch.setattr(Process, "dispose", slowly)
    closing = threading.Thread(target=worker.close)
    closing.start()
    assert disposing.wait(30)
    try:
        with pytest.raises(WorkerDied) as caught:
            worker.call(pid_of)
        assert "closed" in caught.value.hint
    finally:
        finish.set()
        closing.join()
