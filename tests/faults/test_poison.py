"""A few faults of every kind between clean candidates; `poison.py` tries all there are."""

from __future__ import annotations

from pathlib import Path

import poison
import pytest
from poisons import poisons

FEW = ("a patched layer", "the data", "NaN")


def test_there_are_enough_and_none_twice() -> None:
    names = [(p.kind, p.name) for p in poisons()]
    assert len(set(names)) == len(names) >= 59


@pytest.mark.slow
def test_faults_cost_one_trial_each_and_leave_no_trace(tmp_path: Path) -> None:
    chosen = [p for p in poisons() if p.name in FEW]
    found = list(poison.attack(chosen, tmp_path / "study"))
    assert len(found) == len(chosen) == len(FEW)
    assert [attack.fault for attack in found if attack.fault] == []


@pytest.mark.slow
def test_all_faults(tmp_path: Path) -> None:
    found = list(poison.campaign(tmp_path, seed=0, seconds=3600))
    assert len(found) == len(poisons())
    assert [attack.fault for attack in found if attack.fault] == []
