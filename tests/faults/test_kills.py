"""A few studies killed for real; `kills.py` kills as many as there is time for."""

from __future__ import annotations

import random
import time
from pathlib import Path

import kills
import pytest


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[kills.Ended, float]:
    """A study that nobody disturbed, and how long it took."""
    workdir = tmp_path_factory.mktemp("calm") / "study"
    started = time.monotonic()
    assert kills.start(workdir, 1).wait(240) == 0, workdir.with_suffix(".log").read_text()
    return kills.Ended.of(workdir), time.monotonic() - started


@pytest.mark.parametrize(
    ("victim", "workers"),
    [
        pytest.param("at the confirmation", 1, marks=pytest.mark.slow),
        pytest.param("everything", 2, marks=pytest.mark.slow),
        pytest.param("worker", 2, marks=pytest.mark.slow),
        pytest.param("call", 1, marks=pytest.mark.slow),
        pytest.param("measurement", 1, marks=pytest.mark.slow),
    ],
)
def test_a_killed_study_ends_as_if_undisturbed(
    calm: tuple[kills.Ended, float], tmp_path: Path, victim: str, workers: int
) -> None:
    found = kills.attack(tmp_path / "study", victim, workers, *calm, random.Random(1))
    assert found.outcome == "ended as if undisturbed"
    assert not found.fault
