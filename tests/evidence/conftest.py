"""One study for all tests of what ships with a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_bundles import RAW, stored


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not change it; copy it."""
    return stored(tmp_path_factory.mktemp("evidence") / "study")


@pytest.fixture(scope="session")
def shipped(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the smallest model. Do not change it."""
    from petra.report.study_front import StudyFront

    place = tmp_path_factory.mktemp("shipped") / "bundle"
    return StudyFront.load(study).pick("smallest").export(place, preprocessing=RAW).parent


@pytest.fixture
def bundle(shipped: Path, tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(shipped, tmp_path / "bundle"))
