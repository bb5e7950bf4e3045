"""What every metric of a plugin promises. Subclass and say which metric:

class TestMine(MetricSuite):
    metric = MY_METRIC
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from petra.api import create_or_continue
from petra.config import parse_config
from petra.core.metric import METRICS, Metric
from petra.core.objective import Constraint, Objective, named_objectives
from petra.report.html import render
from petra.report.plain import front_data
from petra.report.plots import front_figure
from petra.report.record import StudyRecord
from petra.study import Study
from petra.testing.recorded import RecordedExecutor
from petra.testing.stage_suite import small_problem


class MetricSuite:
    """Conformance tests of one metric, which it registers."""

    metric: ClassVar[Metric]

    @pytest.fixture(autouse=True)
    def registered(self) -> Iterator[None]:
        METRICS.register(self.metric.name, self.metric)
        yield
        METRICS.forget(self.metric.name)

    @pytest.fixture
    def study(self, tmp_path: Path) -> Study:
        """A short study of recorded results with the metric as an objective and a constraint."""
        name = self.metric.name
        config = parse_config(
            {
                "objectives": ["quality", name, "size"],
                "constraints": [f"{name} {'>=' if self.metric.maximize else '<='} baseline"],
                "budget": {"trials": 8},
                "workdir": str(tmp_path / "study"),
            }
        )
        return create_or_continue(config, *small_problem()).run(executor=RecordedExecutor)

    def test_it_describes_itself(self) -> None:
        assert self.metric.doc
        assert self.metric.maximize is not None, "only the quality's direction is the task's"
        assert not self.metric.sampled, "what is measured on items is a task's: write a scorer"
        assert not self.metric.timed, "petra's own protocol is the only one that times"
        assert self.metric.count is not None, "nobody else takes it"

    def test_it_is_counted_from_files(self, tmp_path: Path) -> None:
        file = tmp_path / "model.onnx"
        file.write_bytes(bytes(range(256)) * 64)
        assert self.metric.count is not None
        found = self.metric.count([file])
        assert found == self.metric.count([file])
        assert abs(found) < 1e100
        assert file.read_bytes() == bytes(range(256)) * 64

    def test_it_is_an_objective_and_a_constraint(self) -> None:
        name = self.metric.name
        assert named_objectives([name]) == (Objective(name, bool(self.metric.maximize)),)
        for unit in self.metric.units:
            constraint = Constraint.parse(f"{name} <= 3 {unit}")
            assert constraint.offset == pytest.approx(3 * self.metric.units[unit])
            assert Constraint.parse(str(constraint)) == constraint

    def test_it_is_shown_wherever_metrics_are(self, study: Study) -> None:
        front = study.front
        assert self.metric.name in str(front) or self.metric.column in str(front)
        assert self.metric.title in front_figure(front).to_json()
        assert self.metric.title in render(StudyRecord.load(study.directory))
        assert self.metric.name in json.dumps(front_data(front))
        assert all(trial.measured or trial.failure for trial in study.trials)
