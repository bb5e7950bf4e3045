"""The worker process: receives its payload once, then does every call in a fork of its own until
its parent is gone.

No call sees what another did to its process. Where forks would share more than memory (see
`unforkable`), the process serves a single call and the parent launches another. Imports neither
torch nor anything else of the project's that does; what a call needs comes with the payload or the
call.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import sysconfig
import traceback
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from petra.core.errors import PetraError
from petra.core.noise import hush
from petra.workers.channel import ChildEnd, unpack
from petra.workers.failures import WorkerFailure
from petra.workers.forking import (
    die_with_parent,
    in_a_fork,
    prepare_to_fork,
    regular_files,
    unforkable,
)
from petra.workers.memory import peak_mb, reset_peak
from petra.workers.message import encode

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_LONGEST_TEXT, _LONGEST_TRACEBACK = 4_000, 20_000  # characters
_NOT_THE_USERS = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


def main() -> None:
    """Run the worker; ``sys.argv[1:4]``: fds to read and write, the parent's id."""
    read_fd, write_fd, parent = map(int, sys.argv[1:4])
    del sys.argv[1:]
    hush()
    _behave_as_a_child(parent)
    for fd in (read_fd, write_fd):
        os.set_inheritable(fd, False)
    channel = ChildEnd(read_fd, write_fd)
    files = regular_files()
    # A failure anywhere in foreign code, whatever its type, is a message to the parent and not the
    # end of the worker.
    try:
        payload, prepare = unpack(_next(channel))
        if prepare:
            payload = prepare(payload)
    except BaseException as error:  # noqa: BLE001
        channel.send(("error", sendable(error), peak_mb()))
        return
    reason = unforkable(files)
    channel.send(("ready", not reason))
    if reason:
        sys.stderr.write(f"petra: a process for every call: {reason}\n")
        _answer(channel, payload, _next(channel))
        _next(channel)  # the parent ends this process
    prepare_to_fork()
    while True:
        frame = _next(channel)
        in_a_fork(partial(_answer, channel, payload, frame), channel.read_fd)


def _behave_as_a_child(parent: int) -> None:
    """Die with the parent, leave Ctrl-C to it, and be the first to go when memory runs out."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _next(channel: ChildEnd) -> bytes:
    """What the parent sends next; when it is gone, the end of this process and those it started."""
    try:
        return channel.receive()
    except (EOFError, OSError):
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)


def _answer(channel: ChildEnd, payload: Any, frame: bytes) -> None:
    """Do one call and send what came of it."""
    channel.speak()
    channel.send(("began", os.getpid()))
    reset_peak()
    try:
        threads, call = unpack(frame)
        _use_threads(threads)  # before libraries are loaded that look at it
        function, args = unpack(call)
        result = function(payload, lambda note: channel.send(("note", note)), *args)
        channel.send(("result", result, peak_mb()))
    except BaseException as error:  # noqa: BLE001
        channel.send(("error", sendable(error), peak_mb()))


def _use_threads(threads: int) -> None:
    """The worker starts with one thread in every library, because forks lose all others; this
    process may have more.

    Libraries that are loaded already and are not torch keep to one.
    """
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def sendable(error: BaseException) -> PetraError:
    """The error itself when it is petra's own and can travel, else a record of bounded length."""
    if isinstance(error, PetraError):
        with contextlib.suppress(BaseException):  # what a user's subclass makes of itself
            encode(error)
            if len(error.message) + len(error.hint) <= _LONGEST_TEXT:
                return error
    name = type(error).__name__[:200]
    text = _text(error)
    try:
        full = "".join(traceback.format_exception(error))
    except BaseException as reason:  # noqa: BLE001 - it asks the error for its text
        full = (
            "".join(traceback.format_tb(error.__traceback__))
            + f"{name} (no text: {type(reason).__name__})\n"
        )
    sys.stderr.write(full[-_LONGEST_TRACEBACK:])
    place = "" if isinstance(error, PetraError) else _users_place(error.__traceback__)
    return WorkerFailure(name, f"{text} {place}".strip(), full[-_LONGEST_TRACEBACK:])


def _text(error: BaseException) -> str:
    """What the error says, of bounded length; of what breaks when it is asked, that it does."""
    try:
        text = str.__str__(str(error))
    except BaseException as reason:  # noqa: BLE001
        return f"(its text cannot be shown: {type(reason).__name__})"
    if len(text) > _LONGEST_TEXT:
        return f"{text[:_LONGEST_TEXT]} ... ({len(text)} characters)"
    return text


def _users_place(trace: TracebackType | None) -> str:
    """'(in Precision.score, study.py line 12)': the innermost function of the user's own."""
    found = ""
    package = str(Path(__file__).parents[1])
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith((*_NOT_THE_USERS, package, "<frozen")):
            found = f"(in {code.co_qualname}, {Path(code.co_filename).name} line {trace.tb_lineno})"
        trace = trace.tb_next
    return found
