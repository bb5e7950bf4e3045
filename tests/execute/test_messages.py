"""What comes back from workers is plain records, and what petra did not write is unreadable."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from worker_calls import Note

from petra.core.errors import PetraError, StageRefused
from petra.core.measurement import Measurement
from petra.core.trial import StageTrace
from petra.workers.channel import Frames
from petra.workers.failures import TimeLimitExceeded, Unreadable, WorkerDied, WorkerFailure
from petra.workers.isolate import Worker
from petra.workers.message import decode, encode

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import test modules


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
