"""A page that is kept up without waiting, and one that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import serving

from petra.testing.studies import toy_study
from petra.watch import look as looking
from petra.watch.server import Server


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LEAST_S", 0.0)
    monkeypatch.setattr(looking, "SHARE", 1.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = toy_study(
        tmp_path_factory.mktemp("study"), trials=25, constraints=["size <= 500 kB"]
    )
    with serving(directory) as running:
        yield running
