"""Packages that are as good as installed: their metadata and modules are on sys.path."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

ACME = Path(__file__).parent / "acme"
sys.path.append(str(ACME))  # its modules, which announce nothing by themselves

Groups = Mapping[str, Mapping[str, str]]
Install = Callable[..., Path]


def acme_groups() -> Groups:
    """What the package in `ACME` announces."""
    found: Groups = tomllib.loads((ACME / "pyproject.toml").read_text())["project"]["entry-points"]
    return found


def write_metadata(place: Path, package: str, version: str, groups: Groups) -> Path:
    """What an installer leaves in `place` of a package."""
    info = place / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return place
