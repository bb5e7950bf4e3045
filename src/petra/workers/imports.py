"""Where Python code is imported from: never from wherever a person happens to stand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import petra

HOME = str(Path(petra.__file__).parents[1])
"""The directory that petra itself was imported from."""


def settled(entries: Iterable[str]) -> list[str]:
    """What remains of a module search path without the working directory, under any name.

    Whoever looks at a model that came by mail may stand beside it, and beside what else came with it.
    """
    absolute = [entry for entry in entries if Path(entry).is_absolute()]
    return [entry for entry in absolute if entry == HOME or not _is_here(entry)]


def settle(environment: dict[str, str]) -> None:
    """Let an interpreter that is started with `environment` import nothing from the working directory on its own.

    An empty entry of PYTHONPATH, as in ``$PYTHONPATH:/opt/lib`` with none set before, is that
    directory. The interpreter must be started with ``-P`` besides.
    """
    kept = settled(environment.pop("PYTHONPATH", "").split(os.pathsep))
    if kept:
        environment["PYTHONPATH"] = os.pathsep.join(kept)
    if not Path(environment.get("PYTHONUSERBASE", "")).is_absolute():
        environment.pop("PYTHONUSERBASE", None)


def _is_here(entry: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return Path(entry).samefile(os.curdir)
    return False
