"""A few seconds of the campaign of damaged and hostile files; every schema, layout and saying is
tried.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from files import Ground, campaign
from hostile_values import SAYINGS
from study_harm import speak
from study_layouts import LAYOUTS, SCHEMAS


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_schema_of_a_study_acts(ground: Ground, name: str) -> None:
    attack = ground.study("schema", SCHEMAS[name], name, forged=True)
    assert attack.fault == ""
    assert attack.outcome == "refused" or name in ("a virtual table", "another encoding")


@pytest.mark.parametrize("name", LAYOUTS)
def test_nothing_leads_out_of_a_study(ground: Ground, name: str) -> None:
    assert ground.study("layout", LAYOUTS[name], name, forged=True).fault == ""


@pytest.mark.parametrize("text", SAYINGS, ids=range(len(SAYINGS)))
def test_what_a_study_says_does_nothing(ground: Ground, text: str) -> None:
    attack = ground.study("texts", speak, text, forged=True)
    assert (attack.outcome, attack.fault) == ("read", "")


@pytest.mark.slow
def test_drawn_damage(tmp_path: Path) -> None:
    attacks = list(campaign(tmp_path, seed=1, seconds=8))
    assert [a.fault for a in attacks if a.fault] == []
