"""A process for dangerous work: kept warm, forked for each call, killed at limits, replaced."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from petra.core.errors import PetraError
from petra.workers.channel import framed, pack
from petra.workers.failures import (
    MemoryLimitExceeded,
    NotSendable,
    TimeLimitExceeded,
    Unreadable,
    WorkerDied,
    WorkerError,
    WorkerFailure,
)
from petra.workers.memory import tree_mb
from petra.workers.message import decode
from petra.workers.process import TICK_S, Process, Stopwatch

__all__ = [
    "MemoryLimitExceeded",
    "NotSendable",
    "TimeLimitExceeded",
    "Unreadable",
    "Worker",
    "WorkerDied",
    "WorkerError",
    "WorkerFailure",
]

R = TypeVar("R")
Note = Callable[[object], None]

START_LIMIT_S = 600.0  # for importing libraries and unpickling the payload


class Worker:
    """One warm worker process.

    It needs no ``__main__`` guard: nothing of the caller's script is run again.

    Every call is made in a fork of it, and with the fork ends all that the call did to its process,
    the processes it left behind included: the next call finds memory as the payload was unpickled.
    Where forks would share more than memory (a model on a GPU, open files), every call has a
    process launched for it.

    Functions, arguments and payload travel by cloudpickle, so live models and what was defined in a
    notebook or script reach it; notes, results and errors come back as records (see `message.py`).
    Its output goes to `log`; PyTorch in it uses `threads` threads, which may be set between calls.
    It dies with this process, however that dies, with all that it started itself, and leaves Ctrl-C
    to it. One call at a time; `suspend`, `resume` and `close` may come from any thread.

    It imports from where this process does. One that is `alone` imports what is installed and
    nothing else, and its threads wait as those of any program do: so are files looked at and timed.
    """

    def __init__(self, log: Path, *, threads: int, alone: bool = False) -> None:
        self.log = log
        self.threads = threads
        self.alone = alone
        self.peak_memory_mb = 0.0  # of the latest call
        self.last_note: object = None  # of the latest call
        self._payload = b""
        self._process: Process | None = None
        self._ready = False
        self._forks = False
        self._closed = False
        self._busy = threading.Lock()
        self._state = threading.RLock()
        self._clock = Stopwatch()

    def start(self, payload: object, prepare: Callable[[Any], object] | None = None) -> None:
        """Pickle the payload, launch the process and send it. Later processes get the same bytes.

        ``prepare(payload)`` is run once there, to do what every call would have to; calls get what
        it returns. It must not start threads. Returns while the process is still unpickling; if
        that fails, the first `call` raises it. Raises NotSendable.
        """
        with self._exclusively():
            self._payload = _packed(
                (payload, prepare), "the model, the data or something they hold"
            )
            self._kill()
            self._launch()

    def call(
        self,
        function: Callable[..., R],
        *args: Any,
        time_limit_s: float | None = None,
        memory_limit_mb: float | None = None,
        on_note: Note | None = None,
    ) -> R:
        """``function(payload, note, *args)`` in the worker. What it passes to ``note`` goes to
        `on_note` here, at once.

        One of petra's errors raised there is raised here. Anything else that can happen is a
        WorkerError: WorkerFailure (another exception), WorkerDied (segfault, abort, exit, killed),
        TimeLimitExceeded, MemoryLimitExceeded, Unreadable (it returned something else than
        records). Memory is what the call's process and its descendants have resident, looked at ten
        times a second. Launching a process, which follows a death, counts against neither limit. A
        fork costs some 20 ms.
        """
        with self._exclusively():
            if not self._payload:
                raise RuntimeError("Worker.start comes before Worker.call")
            self.last_note, self.peak_memory_mb = None, 0.0
            call = _packed((function, args), "the function or its arguments")
            message = pack((self.threads, call))
            reusable = False
            try:
                self._make_ready()
                self._send(message)
                kind, value, peak = self._answer(time_limit_s, memory_limit_mb, on_note)
                self.peak_memory_mb = max(self.peak_memory_mb, peak)
                reusable = self._forks
                if kind == "error":
                    raise self._completed(value)
                result: R = value
                return result
            finally:
                if not reusable:
                    # Whatever went wrong, here or there, this process is in the middle of
                    # something.
                    self._kill()

    def suspend(self) -> None:
        """Stop the process and its descendants where they are; their time stands still.

        A call waits to begin.
        """
        with self._state:
            if self._clock.stop() and self._process:
                self._process.signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended worker go on."""
        with self._state:
            if self._clock.go() and self._process:
                self._process.signal_all(signal.SIGCONT)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """End the process for good, at once.

        Calls, under way in other threads or later, raise WorkerDied.
        """
        with self._state:
            self._closed = True
            if self._process:
                self._process.signal_all(signal.SIGKILL)
        self._clock.go()
        with self._busy:
            self._kill()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- plumbing ----------------------------------------------------------------------------------

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            if self._closed:  # it is `close`, in another thread, that is busy
                raise self._died(-signal.SIGKILL)
            raise RuntimeError("a Worker makes one call at a time")
        try:
            yield
        finally:
            self._busy.release()

    def _make_ready(self) -> None:
        """A living process that has unpickled its payload."""
        self._clock.wait_until_running()
        if self._process is None or not self._process.alive():
            self._kill()
            self._launch()
        if not self._ready:
            answer = self._answer(START_LIMIT_S, None, None)
            if answer[0] == "error":
                raise self._completed(answer[1])
            self._ready, self._forks = True, answer[1]

    def _launch(self) -> None:
        with self._state:
            if self._closed:
                raise self._died(-signal.SIGKILL)
            self._process = Process(self.log, alone=self.alone)
            if not self._clock.running:
                self._process.signal_all(signal.SIGSTOP)
        self._ready = False
        self._send(self._payload)

    def _kill(self) -> None:
        with self._state:
            process, self._process = self._process, None
        if process:
            process.signal_all(signal.SIGKILL)
            process.dispose()

    def _send(self, data: bytes) -> None:
        assert self._process is not None
        if not self._process.write(framed(data)):
            raise self._died(self._process.wait())

    def _answer(
        self, time_limit_s: float | None, memory_limit_mb: float | None, on_note: Note | None
    ) -> Any:
        """Wait for the message that is not a note, watching the limits."""
        process = self._process
        assert process is not None
        began = self._clock.seconds()
        next_look = time.monotonic()
        while True:
            alive = process.read(TICK_S)
            while (frame := process.frames.take()) is not None:
                message = decode(frame)
                if message[0] == "began":
                    process.watch(message[1])
                elif message[0] == "note":
                    self.last_note = message[1]
                    if on_note:
                        on_note(message[1])
                else:
                    return message
            if not alive:
                raise self._died(process.wait())
            if time_limit_s is not None and self._clock.seconds() - began > time_limit_s:
                raise TimeLimitExceeded(
                    time_limit_s, note=self.last_note, peak_memory_mb=self.peak_memory_mb
                )
            if self._clock.running and time.monotonic() >= next_look:
                used = tree_mb(process.watched)
                next_look = time.monotonic() + TICK_S
                self.peak_memory_mb = max(self.peak_memory_mb, used)
                if memory_limit_mb is not None and used > memory_limit_mb:
                    raise MemoryLimitExceeded(
                        memory_limit_mb, note=self.last_note, peak_memory_mb=used
                    )

    def _completed(self, error: PetraError) -> PetraError:
        """An error from the worker, with what only this side knows."""
        if isinstance(error, WorkerError):
            error.note, error.peak_memory_mb = self.last_note, self.peak_memory_mb
        if isinstance(error, WorkerFailure):
            error.hint = f"the traceback is in {self.log}"
        return error

    def _died(self, exit_code: int) -> WorkerDied:
        hint = "the worker was closed" if self._closed else f"what it printed is in {self.log}"
        return WorkerDied(
            exit_code, note=self.last_note, peak_memory_mb=self.peak_memory_mb, hint=hint
        )


def _packed(message: object, what: str) -> bytes:
    try:
        return pack(message)
    except Exception as error:
        raise NotSendable(
            f"{what} cannot be sent to a worker process: {type(error).__name__}: {error}",
            hint="models and data must be picklable: no open files, locks or generators in them",
        ) from error
