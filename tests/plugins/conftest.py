"""Packages, installed for the length of a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from packages import Groups, Install, acme_groups, write_metadata

from petra.brought import registries


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs packages for the length of a test; what was loaded of them is forgotten."""

    def make(package: str, groups: Groups, version: str = "1.2") -> Path:
        place = write_metadata(tmp_path / "site" / package, package, version, groups)
        monkeypatch.syspath_prepend(str(place))
        return place

    yield make
    for registry in registries():
        registry.forget(*(one.name for one in registry.announced()))


@pytest.fixture
def acme(install: Install) -> Path:
    """The package in `ACME`, installed."""
    return install("acme-petra", acme_groups())
