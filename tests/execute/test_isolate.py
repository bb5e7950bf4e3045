"""Worker processes under calls: what they see, what comes back, and what of a failure is told."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import cloudpickle
import pytest
from worker_calls import Note, pid_of, pid_of_call

from petra.core.errors import PetraError, StageRefused
from petra.workers.isolate import Worker, WorkerFailure

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import test modules


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
