"""A worker process seen from its parent: launching, pipes, signals, and a clock that stops while it
is suspended.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from petra.workers.channel import LONGEST_ANSWER, Frames
from petra.workers.imports import HOME, settle
from petra.workers.memory import descendants
from petra.workers.worker_main import THREAD_VARIABLES

TICK_S = 0.1
# Sets of strings have one order in all workers, so that what they compute does not depend on which
# one it was. Threads that wait at a barrier sleep: spinning ones make training up to ten times
# slower as soon as the cores are shared.
_BEHAVIOUR = {"PYTHONHASHSEED": "0", "OMP_WAIT_POLICY": "PASSIVE"}
# Arguments: two pipes, the parent, where petra is, and where to import from (none: where Python
# itself would).
_BOOT = (
    "import sys; sys.path[:] = sys.argv[5:] or sys.path; "
    "sys.argv[4] in sys.path or sys.path.insert(0, sys.argv[4]); "
    "from petra.workers.worker_main import main; main()"
)


class Process:
    """One launched process and the pipes to it.

    `alone` is explained in `petra.workers.isolate.Worker`.
    """

    def __init__(self, log: Path, *, alone: bool = False) -> None:
        self.frames = Frames(LONGEST_ANSWER)
        child_read, write_fd = os.pipe()
        read_fd, child_write = os.pipe()
        os.set_blocking(write_fd, False)
        # File objects, so that a forgotten worker is closed with them, reads the end of its input,
        # and exits.
        self._reader = os.fdopen(read_fd, "rb", buffering=0)
        self._writer = os.fdopen(write_fd, "wb", buffering=0)
        command = [
            sys.executable,
            "-u",
            "-X",
            "faulthandler",
            "-c",
            _BOOT,
            str(child_read),
            str(child_write),
        ]
        command += [str(os.getpid()), HOME, *([] if alone else sys.path)]
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
        environment |= {} if alone else _BEHAVIOUR
        settle(environment)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:

            def launch() -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    pass_fds=(child_read, child_write),
                    # a process group of its own, which Ctrl-C in the terminal does not reach
                    start_new_session=True,
                )

            try:
                self._popen = _launcher().launch(launch)
            finally:
                os.close(child_read)
                os.close(child_write)
        self._leader = psutil.Process(self._popen.pid)
        self.watched = self._leader  # whose memory counts

    def watch(self, pid: int) -> None:
        """Count the memory of this descendant, which does the call, and of those below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.watched = psutil.Process(pid)

    def alive(self) -> bool:
        """Whether it has not ended; reaps it when it has.

        A process with threads is dead before it can be reaped: its first thread is a zombie until
        the last is gone.
        """
        if self._popen.poll() is not None:
            return False
        try:
            return bool(self._leader.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def read(self, timeout_s: float) -> bool:
        """Feed `frames` with what comes within the time; False when nothing can come any more."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if not poll.poll(1e3 * timeout_s):
            return self.alive()  # a descendant may hold the pipe open
        data = os.read(self._reader.fileno(), 1 << 20)
        self.frames.feed(data)
        return bool(data)

    def write(self, data: bytes) -> bool:
        """Send all of it; False when the process is gone. Waits for a process that is suspended."""
        rest = memoryview(data)
        poll = select.poll()
        poll.register(self._writer, select.POLLOUT)
        while rest:
            if not poll.poll(1e3 * TICK_S):
                if not self.alive():
                    return False
                continue
            try:
                rest = rest[os.write(self._writer.fileno(), rest) :]
            except BrokenPipeError:
                return False
        return True

    def wait(self) -> int:
        """The exit code, negative for a signal; a process that lives on is killed."""
        try:
            return self._popen.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def signal_all(self, number: signal.Signals) -> None:
        """Signal the process and its descendants, first stopping it from making more of them."""
        if number is not signal.SIGCONT:
            self._popen.send_signal(signal.SIGSTOP)
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = descendants(self._leader)
        self._popen.send_signal(number)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if number is signal.SIGKILL:
            # Orphans too; the group has the number of the process that led it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def dispose(self) -> None:
        """Reap the process and close the pipes."""
        self.wait()
        _launcher().guard.forget(self._popen.pid)
        self._reader.close()
        self._writer.close()


class _Guard:
    """The process that outlives this one, to kill what it started, however it ends.

    The kernel ends a worker with its parent, but not what the worker started; and not all kernels
    do even that.
    """

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard_main.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )
        atexit.register(self._dismiss)

    def watch(self, group: int) -> None:
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}")

    def _dismiss(self) -> None:
        """End its input, and with it the guard, unless forks of this process hold that open."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0)

    def _tell(self, line: str) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            # Somebody killed it: it is a second line of defence.
            os.write(self._popen.stdin.fileno(), f"{line}\n".encode())


class _Launcher:
    """The thread that launches all workers of a process, and their guard.

    The kernel kills a worker when the *thread* that launched it ends, so that must be one that
    lives as long as we do.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="petra-launcher")
        self.guard = _Guard()

    def launch(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        popen = self._thread.submit(start).result()
        self.guard.watch(popen.pid)
        return popen


_launchers: dict[int, _Launcher] = {}
_launching = threading.Lock()


def _launcher() -> _Launcher:
    """This process's own: a fork inherits no threads."""
    with _launching:
        if os.getpid() not in _launchers:
            _launchers[os.getpid()] = _Launcher()
        return _launchers[os.getpid()]


class Stopwatch:
    """Time that stands still while it is stopped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._stopped_at: float | None = None
        self._lost = 0.0

    @property
    def running(self) -> bool:
        """Whether time passes."""
        return self._stopped_at is None

    def seconds(self) -> float:
        """On an arbitrary scale, like `time.monotonic`."""
        with self._changed:
            return (time.monotonic() if self._stopped_at is None else self._stopped_at) - self._lost

    def stop(self) -> bool:
        """Whether it was running before."""
        with self._changed:
            was_running, now = self.running, time.monotonic()
            self._stopped_at = now if self._stopped_at is None else self._stopped_at
            return was_running

    def go(self) -> bool:
        """Whether it was stopped before."""
        with self._changed:
            if self._stopped_at is None:
                return False
            self._lost += time.monotonic() - self._stopped_at
            self._stopped_at = None
            self._changed.notify_all()
            return True

    def wait_until_running(self) -> None:
        """Return at once, or as soon as another thread lets it go on."""
        with self._changed:
            self._changed.wait_for(lambda: self.running)
