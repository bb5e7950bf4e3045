"""A study that has just been begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import CONFIG, HOST

from petra.store.store import Store


@pytest.fixture
def store(tmp_path: Path):
    with Store.create(tmp_path / "study", CONFIG, HOST) as made:
        yield made
