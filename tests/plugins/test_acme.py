"""One plugin of each kind, as docs/plugins.md has them, against the suite of its kind: a package of
its own, which imports petra and which petra does not know.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import packages  # which makes the package importable
import pytest
from acme_petra.diary import Diary
from acme_petra.download import DOWNLOAD
from acme_petra.nearby import Nearby
from acme_petra.packed import Packed
from acme_petra.rounding import Round

from petra.core.trial import Trial
from petra.search.base import Problem, Searcher
from petra.testing.callback_suite import CallbackSuite
from petra.testing.metric_suite import MetricSuite
from petra.testing.runtime_suite import RuntimeSuite
from petra.testing.search_suite import SearcherSuite
from petra.testing.stage_suite import StageSuite


@pytest.mark.slow
@pytest.mark.usefixtures("acme")
class TestRound(StageSuite):
    stage = Round
    fast = {"bits": 9}


@pytest.mark.slow
class TestPacked(RuntimeSuite):
    runtime = Packed

    @pytest.fixture(autouse=True)
    def _importable_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the processes that the suite starts."""
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(packages.ACME), *sys.path]))


class TestNearby(SearcherSuite):
    trials = 24

    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return Nearby(problem, baseline)


class TestDownload(MetricSuite):
    metric = DOWNLOAD


class TestDiary(CallbackSuite):
    def make(self) -> Diary:
        return Diary()

    def test_it_writes_what_it_hears(self, tmp_path: Path) -> None:
        trials = self.run(tmp_path / "study")
        lines = [json.loads(t) for t in (tmp_path / "study/diary.jsonl").read_text().splitlines()]
        ended = {line["trial"]: line["ended"] for line in lines if "trial" in line}
        assert ended == {t.number: t.status.value for t in trials}
        assert any(line.get("members") for line in lines)
