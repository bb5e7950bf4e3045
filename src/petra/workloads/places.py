"""Where the files of workloads lie: data that people bring, and weights that are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from petra.core.errors import DataError
from petra.core.text import shown

VARIABLE = "PETRA_DATA"
DEVICE = "PETRA_BASELINE_DEVICE"
USUAL = (Path("../shared/data"), Path("data"))


def data_places() -> tuple[Path, ...]:
    """Where workload data is looked for: $PETRA_DATA, else ``../shared/data`` and ``data``."""
    given = os.environ.get(VARIABLE)
    return (Path(given),) if given else USUAL


def known_root() -> Path | None:
    """The first of `data_places` that is there."""
    return next((path.resolve() for path in data_places() if path.is_dir()), None)


def data_root(wanted: str = "cifar10/ and weights/") -> Path:
    """Where workload data lives. Raises DataError where there is no such directory; `wanted` is
    what it should hold.
    """
    root = known_root()
    if root is None:
        raise DataError(
            f"no data directory: looked at {', '.join(map(str, data_places()))}",
            hint=f"set {VARIABLE} to a directory that holds {wanted}, or pass data=",
        )
    return root


def data_file(name: str, given: str | Path | None = None) -> Path:
    """The file called so under the data root, or the one `given`. Raises DataError where it is
    missing, saying where it was looked for.
    """
    path = data_root(name) / name if given is None else Path(given)
    if not path.is_file():
        raise DataError(
            f"{path}: no such file",
            hint=f"put {name} into the directory that {VARIABLE} names (docs/data.md), or pass"
            " data=, the path of the file",
        )
    return path


def missing(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the files that are not under the data root, in the form that messages have them."""
    root = known_root()
    if root is None:
        return tuple(names)
    return tuple(name for name in names if not (root / name).exists())


def training_device() -> str:
    """Where reference models are trained: $PETRA_BASELINE_DEVICE, cpu, cuda or cuda:N; cpu without
    it. Raises DataError for anything else.
    """
    device = os.environ.get(DEVICE) or "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device):
        raise DataError(f"{DEVICE}: got {shown(device)}", hint="allowed: cpu, cuda, cuda:N")
    return device


def trained_on() -> dict[str, str]:
    """What the device adds to all that trained weights depend on; nothing for the usual one."""
    kind = training_device().partition(":")[0]
    return {} if kind == "cpu" else {"device": kind}


def cache_folder() -> Path:
    """Where trained weights are kept: $PETRA_CACHE, else ``petra`` in the user's cache."""
    given = os.environ.get("PETRA_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "petra"
