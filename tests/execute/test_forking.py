"""Every call begins with the process as it was; what comes back is plain records; where forks would
share: none.
"""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from petra.core.errors import PetraError, StageRefused
from petra.core.measurement import Measurement
from petra.core.trial import StageTrace
from petra.workers.channel import Frames
from petra.workers.failures import TimeLimitExceeded, Unreadable, WorkerDied, WorkerFailure
from petra.workers.isolate import Worker
from petra.workers.message import decode, encode

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import test modules

Note = Callable[[object], None]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(tmp_path_factory.mktemp("log") / "worker.log", threads=1) as worker:
        worker.start({"numbers": [1, 2, 3]})
        yield worker


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


# ---- messages ------------------------------------------------------------------------------------


class Crafted:
    """Runs code in whoever unpickles it."""

    def __reduce__(self) -> Any:
        return (os._exit, (13,))


class Mine(PetraError):
    pass


class Liar(StageRefused):
    """Claims to be petra's own."""


Liar.__module__, Liar.__qualname__ = StageRefused.__module__, "StageRefused"


@pytest.mark.parametrize(
    "make",
    [
        Crafted,
        object,
        lambda: {1, 2},
        lambda: print,
        lambda: Path("x"),
        lambda: [Crafted()],
        lambda: {"a": Crafted},
    ],
)
def test_what_is_no_plain_record_does_not_leave_the_worker(
    shared: Worker, make: Callable[[], object]
) -> None:
    with pytest.raises(WorkerFailure, match="is no plain record"):
        shared.call(lambda payload, note: make())
    with pytest.raises(WorkerFailure, match="is no plain record"):
        shared.call(lambda payload, note: note(make()))


def raising(make: Callable[[], BaseException]) -> Callable[..., Any]:
    def work(payload: Any, note: Note) -> None:
        raise make()

    return work


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: Mine("somebody's", hint="help"), "Mine", "somebody's\n  help"),
        (
            lambda: TimeLimitExceeded(1.0, note=None, peak_memory_mb=0),
            "TimeLimitExceeded",
            "not finished",
        ),
        (lambda: WorkerDied(3, note=None, peak_memory_mb=0), "WorkerDied", "code 3"),
        (lambda: StageRefused(Crafted()), "StageRefused", "cannot be shown"),
        (lambda: StageRefused("x" * 1_000_000), "StageRefused", "1000000 characters"),
    ],
)
def test_errors_that_are_not_petras_own_arrive_as_records(
    shared: Worker, make: Any, kind: str, words: str
) -> None:
    with pytest.raises(WorkerFailure) as caught:
        shared.call(raising(make))
    assert caught.value.kind == kind
    assert words in caught.value.message
    assert len(caught.value.message) < 5000


def test_records_travel_as_they_are() -> None:
    trace = StageTrace(
        "tune", ("a", "b"), {"c": "too thin"}, details={"x": [1, 2.5, None, True, "é\udcff"]}
    )
    for value in (
        trace,
        Measurement(1e-300, float("inf"), 3),
        [(), {}, {1: (2,), "k": b"\x00\xff"}],
        -(10**30),
        "\x00",
    ):
        again = decode(encode(value))
        assert again == value
        assert type(again) is type(value)
    refused = StageRefused("no", layer="conv1", hint="leave it")
    again = decode(encode(refused))
    assert type(again) is StageRefused
    assert (str(again), vars(again)) == (str(refused), vars(refused))


@pytest.mark.parametrize(
    "text",
    [
        '{"record":["os","system",{"dict":[]}]}',
        '{"record":["petra.cli.main","main",{"dict":[]}]}',
        '{"record":["petra.core.registry","importlib",{"dict":[]}]}',
        '{"record":["petra.core.registry","Registry",'
        '{"dict":[["noun","x"],["table",{"dict":[]}]]}]}',
        '{"record":["petra.core.measurement","Measurement",{"dict":[["nonsense",1]]}]}',
        '{"record":["petra.nonsense","X",{"dict":[]}]}',
        '{"error":["petra.workers.failures","WorkerDied",{"dict":[["message","x"]]}]}',
        '{"error":["petra.core.errors","PetraError",{"dict":[["message",5]]}]}',
        '{"error":["builtins","SystemExit",{"dict":[["message","x"]]}]}',
        '{"dict":[[{"dict":[]},1]]}',
        '{"a":1,"b":2}',
        "[" * 100_000,
        '{"tuple":' * 50_000,
        "1" * 10_000,
        "\xff",
        "",
    ],
)
def test_messages_that_petra_did_not_write_are_unreadable_and_nothing_else(text: str) -> None:
    with pytest.raises(Unreadable):
        decode(text.encode("latin-1"))


def test_no_noise_is_more_than_unreadable() -> None:
    draw = random.Random(0)
    whole = bytearray(encode(("result", StageTrace("tune", details={"a": [1, {"b": 2}]}), 3.5)))
    for _ in range(3000):
        body = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            body[draw.randrange(len(body))] = draw.randrange(256)
        try:
            decode(bytes(body))
        except Unreadable:
            continue


def test_a_frame_that_claims_too_much_is_refused_before_it_is_waited_for() -> None:
    frames = Frames(longest=100)
    frames.feed(b"\x00" * 7 + b"\x65")
    with pytest.raises(Unreadable, match="101 bytes, 100 allowed"):
        frames.take()


def test_noise_in_the_pipe_costs_the_call_and_not_the_worker(shared: Worker) -> None:
    def shout(payload: Any, note: Note) -> None:
        for fd in range(3, 64):
            try:
                os.set_blocking(fd, False)
                os.write(fd, b"\xff" * 64)
            except OSError:
                continue

    with pytest.raises(Unreadable):
        shared.call(shout)
    assert shared.call(lambda payload, note: payload) == {"numbers": [1, 2, 3]}


def test_temporary_names_differ_between_forks(shared: Worker) -> None:
    names = {shared.call(lambda payload, note: tempfile.mktemp()) for _ in range(2)}
    assert len(names) == 2
