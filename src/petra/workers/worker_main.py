"""The worker process: receives its payload once, then runs one function after the other until its parent is gone.

Imports neither torch nor anything else of the project's that does; what a call needs comes with the call.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import resource
import signal
import sys
import threading
import traceback
from pathlib import Path

from petra.core.errors import PetraError
from petra.workers.channel import ChildEnd, pack, unpack
from petra.workers.failures import WorkerFailure
from petra.workers.memory import peak_mb, reset_peak

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the worker; ``sys.argv[1:4]`` are the fds to read and write and the parent's process id."""
    read_fd, write_fd, parent = map(int, sys.argv[1:4])
    del sys.argv[1:]
    _behave_as_a_child(parent)
    for fd in (read_fd, write_fd):
        os.set_inheritable(fd, False)
    channel = ChildEnd(read_fd, write_fd)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, inbox), daemon=True, name="petra-inbox").start()
    # A failure anywhere in foreign code, whatever its type, is a message to the parent and not the end of the worker.
    try:
        payload = unpack(inbox.get())
    except BaseException as error:  # noqa: BLE001
        channel.send(("error", _sendable(error), peak_mb()))
        return
    channel.send(("ready",))
    while True:
        frame = inbox.get()
        reset_peak()
        try:
            function, args = unpack(frame)
            result = function(payload, lambda note: channel.send(("note", note)), *args)
            channel.send(("result", result, peak_mb()))
            del result
        except BaseException as error:  # noqa: BLE001
            channel.send(("error", _sendable(error), peak_mb()))


def _behave_as_a_child(parent: int) -> None:
    """Die with the parent however it dies, leave Ctrl-C to it, and be the first to go when memory runs out."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _listen(channel: ChildEnd, inbox: queue.SimpleQueue[bytes]) -> None:
    """Queue what the parent sends; when it is gone, end this process and those it started, whatever they are doing."""
    try:
        while True:
            inbox.put(channel.receive())
    except (EOFError, OSError):
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)


def _sendable(error: BaseException) -> PetraError:
    """The error itself when it is a deliberate one that survives the journey, else a record of it."""
    if isinstance(error, PetraError):
        try:
            unpack(pack(error)[8:])
            return error
        except BaseException as reason:  # noqa: BLE001 - an error's own pickling may raise anything
            error.add_note(f"(it could not be sent as it is: {reason!r})")
    text = "".join(traceback.format_exception(error))
    sys.stderr.write(text)
    return WorkerFailure(type(error).__name__, str(error), text)
