"""Small sets in the place of the archives'."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sets import write_series, write_values

from petra.workloads import tser, ucr


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with small sets, and a cache of its own; networks train for an epoch."""
    monkeypatch.setenv("PETRA_DATA", str(tmp_path))
    monkeypatch.setenv("PETRA_CACHE", str(tmp_path / "cache"))
    short = {"GunPoint": ucr.UcrSet(1, 8, small=True), "Wafer": ucr.UcrSet(1, 8)}
    monkeypatch.setattr(ucr, "SETS", short)
    monkeypatch.setattr(tser, "SETS", {"Tecator": tser.TserSet(1, 8)})
    for name in short:
        write_series(tmp_path / "ucr", name)
    write_values(tmp_path / "tser", "Tecator")
    return tmp_path
