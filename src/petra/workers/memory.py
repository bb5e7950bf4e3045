"""Resident memory of processes, in MB of 2**20 bytes."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import psutil

MB = 2**20


def reset_peak() -> None:
    """Start `peak_mb` afresh at what is resident now.

    Where the system does not allow it, the old peak stands.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """The most this process has had resident since `reset_peak`, or since it began."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MB if sys.platform == "darwin" else peak / 1024


def tree_mb(process: psutil.Process) -> float:
    """What a process and its descendants have resident; pages that they share count once.

    0 when the process is gone. A fraction of a millisecond; more with descendants, whose pages the
    kernel must divide.
    """
    try:
        family = [process, *descendants(process)]
        if len(family) == 1:
            return float(process.memory_info().rss) / MB
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            try:
                total += member.memory_full_info().pss
            except (
                psutil.AccessDenied,
                AttributeError,
            ):
                # Other systems do not divide shared pages up.
                total += member.memory_info().rss
    return total / MB


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Children, their children and so on. Raises psutil.NoSuchProcess when the process is gone."""
    if not Path(f"/proc/{process.pid}/task/{process.pid}/children").exists():
        return list(process.children(recursive=True))  # looks at every process there is
    found: list[psutil.Process] = []
    parents = [process.pid]
    while parents:
        for listing in Path(f"/proc/{parents.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                # Threads and processes come and go.
                for pid in map(int, listing.read_text().split()):
                    found.append(psutil.Process(pid))
                    parents.append(pid)
    return found
