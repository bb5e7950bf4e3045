"""One fork of the worker per call: whatever foreign code does to its process ends with it."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import mmap
import os
import select
import signal
import stat
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import psutil

from petra.workers.memory import descendants

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LOOK_MS = 20


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Be sent `number` when the parent is gone; end at once when it is gone already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def prepare_to_fork() -> None:
    """Orphans of forks become children of this process, which ends them all when it ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda number, frame: _end(-number))
    # From now on no foreign code runs here that could keep it waiting.
    die_with_parent(os.getppid(), signal.SIGTERM)
    gc.collect()
    gc.freeze()  # pages that the collector does not touch stay shared


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # other systems have no such call
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def regular_files() -> frozenset[tuple[int, int, int]]:
    """Files open in this process: descriptor, device and inode."""
    found = set()
    for path in Path("/proc/self/fd").iterdir() if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):
            status = os.fstat(int(path.name))
            if stat.S_ISREG(status.st_mode):
                found.add((int(path.name), status.st_dev, status.st_ino))
    return frozenset(found)


def unforkable(files_before: frozenset[tuple[int, int, int]]) -> str:
    """What forks of this process would share or lack, so that it serves one call; '' if none."""
    if sys.platform != "linux":
        return "forks are not safe on this system"
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        return "the model or the data started threads"
    if regular_files() - files_before:
        return "the model or the data hold open files, whose position forks would share"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "the model or the data lie on a GPU"
    for line in Path("/proc/self/maps").read_text().splitlines():
        _, rights, _, _, _, *path = line.split(maxsplit=5)
        if rights == "rw-s" and not "".join(path).startswith("/dev/shm/sem."):
            return f"the model or the data lie in shared memory: {' '.join(path)}"
    return ""


def in_a_fork(work: Callable[[], None], read_fd: int) -> None:
    """Do `work` in a fork and end all that it leaves behind.

    When the fork ends without having come to the end of `work`, this process ends as it did.
    """
    done = mmap.mmap(-1, 1)
    parent = os.getpid()
    with warnings.catch_warnings():
        # Newer Pythons count threads of libraries that look after themselves.
        warnings.simplefilter("ignore")
        pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent(parent)
            work()
            done[0] = 1
        except BaseException:  # noqa: BLE001 - it could not even be sent
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = _wait(pid, read_fd)
    left = _end_descendants()
    if left:
        sys.stderr.write(f"petra: ended {left} processes that the call left behind\n")
    if not done[0]:
        _end(code)
    done.close()


def _wait(pid: int, read_fd: int) -> int:
    """The exit code of the fork, negative for a signal; does not return when the parent is gone."""
    poll = select.poll()
    poll.register(read_fd, select.POLLIN)
    wait = os.WNOHANG
    while True:
        found, status = os.waitpid(pid, wait)
        if found:
            return os.waitstatus_to_exitcode(status)
        events = poll.poll(_LOOK_MS)
        if any(event & select.POLLHUP and not event & select.POLLIN for _, event in events):
            _end(1)
        if events:
            # The next call: the answer to this one has been read, so the fork is about to end.
            wait = 0


def _end_descendants() -> int:
    """Kill and reap all processes below this one; how many there were."""
    count = 0
    while True:
        for process in descendants(psutil.Process()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return count
        count += bool(found)
        if not found:
            time.sleep(0.001)


def _end(code: int) -> None:
    """End this process and all below it, with an exit code or, negative, by that signal."""
    if code < 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    _end_descendants()
    if code < 0:
        faulthandler.disable()
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(max(code, 1) if code < 0 else code)
