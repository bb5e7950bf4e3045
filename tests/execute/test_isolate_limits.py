"""Limits of time and memory on worker processes, and what being suspended does to them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from typing import Any

import cloudpickle
import psutil
import pytest
from worker_calls import Note, hang, pid_of

from petra.workers.isolate import MemoryLimitExceeded, TimeLimitExceeded, Worker

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import test modules


# -- limits ----------------------------------------------------------------------------------------


def hang_holding_the_interpreter(payload: Any, note: Note) -> None:
    note("asleep")
    ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the lock that every other thread needs


@pytest.mark.parametrize("function", [hang, hang_holding_the_interpreter])
def test_time_limit(shared: Worker, function: Any) -> None:
    shared.call(pid_of)
    with pytest.raises(TimeLimitExceeded, match=r"not finished after 0.5 s") as caught:
        shared.call(function, time_limit_s=0.5)
    assert caught.value.note == "asleep"
    assert caught.value.peak_memory_mb > 5


def grow(payload: Any, note: Note, megabytes: int) -> None:
    held = []
    for i in range(0, megabytes, 10):
        held.append(bytearray(os.urandom(1)) * (10 << 20))
        note(i)
        time.sleep(0.02)
    time.sleep(0.3)


def grow_in_a_child(payload: Any, note: Note, megabytes: int) -> None:
    code = f"import time; x = bytearray(b'1') * ({megabytes} << 20); time.sleep(100)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("function", [grow, grow_in_a_child])
def test_memory_limit(shared: Worker, function: Any) -> None:
    with pytest.raises(MemoryLimitExceeded, match="200 MB allowed") as caught:
        shared.call(function, 400, memory_limit_mb=200)
    assert 200 < caught.value.peak_memory_mb < 500
    shared.call(grow, 100, memory_limit_mb=200)
    assert 100 < shared.peak_memory_mb < 200


def test_a_peak_too_short_to_be_watched_is_seen(shared: Worker) -> None:
    def spike(payload: Any, note: Note) -> None:
        bytearray(b"1") * (150 << 20)

    shared.call(spike)
    assert shared.peak_memory_mb > 150
    shared.call(pid_of)
    assert shared.peak_memory_mb < 100, "each call has a peak of its own"


def test_pages_shared_by_forks_count_once(shared: Worker) -> None:
    def share(payload: Any, note: Note) -> None:
        held = bytearray(b"1") * (100 << 20)
        children = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                time.sleep(0.5)
                os._exit(len(held) & 1)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)

    shared.call(share, memory_limit_mb=250)
    assert 100 < shared.peak_memory_mb < 200


# -- suspending ------------------------------------------------------------------------------------


def test_suspended_time_does_not_count(shared: Worker) -> None:
    def tick(payload: Any, note: Note) -> str:
        child = subprocess.Popen(["sleep", "100"])
        note((os.getpid(), child.pid))
        for i in range(8):
            note(i)
            time.sleep(0.05)
        child.kill()
        return "done"

    arrived: list[tuple[float, object]] = []
    states: list[str] = []

    def interrupt() -> None:
        while len(arrived) < 3:
            time.sleep(0.01)
        shared.suspend()
        shared.suspend()  # harmless
        time.sleep(0.2)
        seen = len(arrived)
        pid, child = arrived[0][1]  # type: ignore[misc]
        time.sleep(2.0)
        states.extend(
            [psutil.Process(pid).status(), psutil.Process(child).status(), str(len(arrived) - seen)]
        )
        shared.resume()

    other = threading.Thread(target=interrupt)
    other.start()
    result = shared.call(
        tick, time_limit_s=2.0, on_note=lambda n: arrived.append((time.monotonic(), n))
    )
    other.join()
    assert result == "done"
    assert states == [psutil.STATUS_STOPPED, psutil.STATUS_STOPPED, "0"]
    assert arrived[-1][0] - arrived[0][0] > 2.0


def test_a_suspended_worker_begins_nothing(shared: Worker) -> None:
    shared.suspend()
    released: list[float] = []
    timer = threading.Timer(0.3, lambda: (released.append(time.monotonic()), shared.resume()))
    timer.start()
    shared.call(pid_of, time_limit_s=30.0)
    assert released
