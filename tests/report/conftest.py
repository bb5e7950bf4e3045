"""The study that the tests of a file share."""

from __future__ import annotations

from pathlib import Path

import pytest

from petra.testing.studies import toy_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bound = ("quality >= baseline - 0.2",)
    return toy_study(tmp_path_factory.mktemp("study"), trials=50, constraints=bound)
