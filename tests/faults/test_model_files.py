"""A few seconds of the campaign against what reads model files."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_files import campaign


@pytest.mark.slow
def test_odd_model_files_are_judged_or_refused(tmp_path: Path) -> None:
    attacks = list(campaign(tmp_path, seed=1, seconds=8))
    assert attacks
    assert not [attack for attack in attacks if attack.fault]
