"""Where Python code is imported from: never from wherever a person happens to stand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, MutableMapping
from pathlib import Path

import petra

HOME = str(Path(petra.__file__).parents[1])
"""The directory that petra itself was imported from."""


def settled(entries: Iterable[str]) -> list[str]:
    """What remains of a module search path without the working directory, under any name.

    Whoever looks at a model that came by mail may stand beside it, and beside what else came with
    it.
    """
    absolute = [entry for entry in entries if Path(entry).is_absolute()]
    return [entry for entry in absolute if entry == HOME or not _is_here(entry)]


def settle(environment: MutableMapping[str, str]) -> None:
    """Let no interpreter started with `environment` import from the working directory.

    That is what Python does by default for ``-c`` and ``-m``, with which torch starts some, and for
    an empty entry of PYTHONPATH, as in ``$PYTHONPATH:/opt/lib`` with none set before.
    """
    environment["PYTHONSAFEPATH"] = "1"
    kept = settled(environment.pop("PYTHONPATH", "").split(os.pathsep))
    if kept:
        environment["PYTHONPATH"] = os.pathsep.join(kept)
    if not Path(environment.get("PYTHONUSERBASE", "")).is_absolute():
        environment.pop("PYTHONUSERBASE", None)


def _is_here(entry: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return Path(entry).samefile(os.curdir)
    return False
