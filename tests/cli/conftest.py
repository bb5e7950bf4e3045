"""What tests of the command line look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from petra.testing.studies import toy_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_study(tmp_path_factory.mktemp("study"), trials=25)
