"""Worker processes under real faults: what they do to themselves, what is done to them, and what is
left of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

import petra.workers.isolate
from petra.core.errors import PetraError, StageRefused
from petra.workers.isolate import (
    MemoryLimitExceeded,
    NotSendable,
    TimeLimitExceeded,
    Worker,
    WorkerDied,
    WorkerFailure,
)
from petra.workers.process import Process

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import test modules

Note = Callable[[object], None]
SOURCE = str(Path(petra.workers.isolate.__file__).parents[2])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for the whole file: every test also shows that the faults before it did no lasting
    harm.
    """
    with Worker(tmp_path_factory.mktemp("log") / "worker.log", threads=1) as worker:
        worker.start({"numbers": [1, 2, 3]})
        yield worker


def pid_of(payload: Any, note: Note) -> int:
    """The warm process, of which every call is a fork."""
    return os.getppid()


def pid_of_call(payload: Any, note: Note) -> int:
    return os.getpid()


def gone(pid: int, within_s: float = 20.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


# -- ordinary calls --------------------------------------------------------------------------------


def test_a_call_sees_payload_arguments_and_streams_notes(shared: Worker) -> None:
    def work(payload: Any, note: Note, *args: Any) -> Any:
        for i in range(3):
            note(("step", i))
        return payload["numbers"], args

    notes: list[object] = []
    assert shared.call(work, 4, "five", on_note=notes.append) == ([1, 2, 3], (4, "five"))
    assert notes == [("step", 0), ("step", 1), ("step", 2)]
    assert shared.last_note == ("step", 2)
    assert shared.peak_memory_mb > 5


def test_the_process_stays_warm_and_every_call_finds_the_payload_as_it_was_sent(
    shared: Worker,
) -> None:
    def change(payload: Any, note: Note) -> int:
        payload["calls"] = payload.get("calls", 0) + 1
        return payload["calls"]

    first = shared.call(pid_of)
    assert shared.call(pid_of) == first != os.getpid()
    assert (shared.call(change), shared.call(change)) == (1, 1)
    assert shared.call(pid_of_call) != shared.call(pid_of_call)


def test_megabytes_each_way(shared: Worker) -> None:
    data = os.urandom(5_000_000)
    assert shared.call(lambda payload, note, x: x[::-1], data) == data[::-1]


def test_the_environment_of_the_worker(shared: Worker) -> None:
    def look(payload: Any, note: Note) -> Any:
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return os.environ["OMP_NUM_THREADS"], ignored, "torch" in sys.modules, sys.argv

    assert shared.call(look) == ("1", True, False, ["-c"])


def test_output_goes_to_the_log(shared: Worker) -> None:
    shared.call(lambda payload, note: print("hello from inside"))
    assert "hello from inside" in shared.log.read_text()


# -- failures of the function ----------------------------------------------------------------------


class Special(PetraError):
    """A deliberate error with a constructor of its own, known to this module only."""

    def __init__(self, layer: str, *, rank: int) -> None:
        super().__init__(f"{layer} has rank {rank}", hint="use another")
        self.rank = rank


def test_errors_of_petra_arrive_as_themselves_and_others_as_records(shared: Worker) -> None:
    def refuse(payload: Any, note: Note) -> None:
        note("before")
        raise StageRefused("too small", layer="conv1", hint="leave it out")

    def special(payload: Any, note: Note) -> None:
        raise Special("fc", rank=3)

    before = shared.call(pid_of)
    with pytest.raises(StageRefused, match="layer 'conv1': too small") as refused:
        shared.call(refuse)
    assert (refused.value.layer, refused.value.hint) == ("conv1", "leave it out")
    assert shared.last_note == "before"
    with pytest.raises(WorkerFailure, match="fc has rank 3\n  use another") as caught:
        shared.call(special)
    assert caught.value.kind == "Special"
    assert shared.call(pid_of) == before


def test_other_exceptions_are_recorded_with_their_place(shared: Worker) -> None:
    def divide(payload: Any, note: Note, zero: int) -> float:
        note("dividing")
        return 1 / zero

    with pytest.raises(WorkerFailure) as caught:
        shared.call(divide, 0)
    error = caught.value
    line = divide.__code__.co_firstlineno + 2
    assert (error.kind, error.message, error.note) == (
        "ZeroDivisionError",
        (
            f"ZeroDivisionError: division by zero (in {divide.__qualname__}, test_isolate.py line"
            f" {line})"
        ),
        "dividing",
    )
    assert "return 1 / zero" in error.traceback or "in divide" in error.traceback
    assert error.peak_memory_mb > 5
    assert str(shared.log) in error.hint
    assert "ZeroDivisionError" in shared.log.read_text()


def unpicklable(payload: Any, note: Note) -> Any:
    return threading.Lock()


def exit_politely(payload: Any, note: Note) -> None:
    sys.exit("enough")


class Stubborn(PetraError):
    """An error that cannot be pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        raise ZeroDivisionError("no")


def stubborn(payload: Any, note: Note) -> None:
    raise Stubborn("the message survives")


def out_of_memory(payload: Any, note: Note) -> None:
    bytearray(1 << 60)


@pytest.mark.parametrize(
    ("function", "kind", "text"),
    [
        (unpicklable, "TypeError", "a _thread.lock is no plain record"),
        (exit_politely, "SystemExit", "enough"),
        (stubborn, "Stubborn", "the message survives"),
        (out_of_memory, "MemoryError", "MemoryError"),
    ],
)
def test_odd_ways_to_fail(shared: Worker, function: Any, kind: str, text: str) -> None:
    with pytest.raises(WorkerFailure, match=text) as caught:
        shared.call(function)
    assert caught.value.kind == kind


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


# -- limits ----------------------------------------------------------------------------------------


def hang(payload: Any, note: Note) -> None:
    note("asleep")
    time.sleep(1000)


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


# -- scripts ---------------------------------------------------------------------------------------

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
from petra.workers.isolate import Worker

print("top", flush=True)  # must appear once: the worker does not run the script

class Model:
    def __init__(self, scale):
        self.scale = scale
    def __call__(self, x):
        return self.scale * x

def work(model, note, x):
    note(os.getpid())
    return model(x)

def sleep(model, note):
    note(os.getpid())
    time.sleep(1000)

worker = Worker(Path(sys.argv[1]), threads=1)
worker.start(Model(3))
print(json.dumps(worker.call(work, 14)), flush=True)
if sys.argv[2] == "hold the interpreter":
    def sleep(model, note):
        import ctypes
        note(os.getpid())
        ctypes.PyDLL(None).sleep(1000)
if sys.argv[2] == "with children":
    def sleep(model, note):
        import ctypes, subprocess
        note(os.getpid())
        note(subprocess.Popen(["sleep", "1000"]).pid)
        ctypes.PyDLL(None).sleep(1000)
if sys.argv[2] in ("hang", "hold the interpreter", "with children"):
    worker.call(sleep, on_note=lambda pid: print(pid, flush=True))
if sys.argv[2] == "interrupt":
    try:
        worker.call(sleep, on_note=lambda pid: print(pid, flush=True))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def run_script(tmp_path: Path, mode: str) -> subprocess.Popen[str]:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH", "")])),
    }
    command = [sys.executable, str(path), str(tmp_path / "log"), mode]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def test_a_script_without_main_guard(tmp_path: Path) -> None:
    out, err = run_script(tmp_path, "end").communicate(timeout=60)
    assert out.splitlines() == ["top", "42"], err
    assert not err, "and nothing is left to complain about at exit"


@pytest.mark.parametrize("mode", ["hang", "hold the interpreter"])
def test_the_worker_dies_with_its_parent(tmp_path: Path, mode: str) -> None:
    script = run_script(tmp_path, mode)
    assert script.stdout
    lines = [script.stdout.readline() for _ in range(3)]
    pid = json.loads(lines[2])
    assert psutil.pid_exists(pid)
    script.kill()
    script.communicate()
    assert gone(pid)


def test_what_the_worker_started_dies_with_the_parent_too(tmp_path: Path) -> None:
    script = run_script(tmp_path, "with children")
    assert script.stdout
    lines = [script.stdout.readline() for _ in range(4)]
    script.kill()
    script.communicate()
    assert all(gone(json.loads(line)) for line in lines[2:])


def test_ctrl_c_is_for_the_parent(tmp_path: Path) -> None:
    script = run_script(tmp_path, "interrupt")
    assert script.stdout
    pid = json.loads([script.stdout.readline() for _ in range(3)][2])
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert psutil.pid_exists(pid), "ignored there"
    script.send_signal(signal.SIGINT)
    out, _ = script.communicate(timeout=60)
    assert out == "interrupted\n"
    assert gone(pid)


def test_the_guard_ends_groups_it_was_not_told_to_forget(tmp_path: Path) -> None:
    sleepers = [subprocess.Popen(["sleep", "100"], start_new_session=True) for _ in range(2)]
    guard = [
        sys.executable,
        "-I",
        "-S",
        str(Path(petra.workers.isolate.__file__).with_name("guard_main.py")),
    ]
    told = "".join(f"+{sleeper.pid}\n" for sleeper in sleepers) + f"-{sleepers[1].pid}\n"
    subprocess.run(guard, input=told.encode(), check=True, timeout=30)
    try:
        assert sleepers[0].wait(20) == -signal.SIGKILL
        assert sleepers[1].poll() is None
    finally:
        sleepers[1].kill()
        sleepers[1].wait()
