"""What outlives a process that is killed, to end what it started.

A script that needs no other module.

Reads lines ``+N`` and ``-N`` from standard input, numbers of process groups to watch over and to
forget. At the end of the input, which comes when the process at its other end is gone, all groups
watched over are killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        number = int(line[1:])
        (groups.add if line.startswith(b"+") else groups.discard)(number)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
