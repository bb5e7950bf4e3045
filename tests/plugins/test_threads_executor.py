"""A third party's executor passes the suite, and what it is made of serves alone: files are judged
wherever they were built.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from threads_executor import Here, ThreadsExecutor

from petra.core.errors import ArtifactError
from petra.core.target import Target
from petra.execute.base import Assignment, Executor
from petra.execute.builder import Builder
from petra.execute.judge import write_data
from petra.execute.verdict import Judge
from petra.testing.executor_suite import CUT, ExecutorSuite, small_assignment


@pytest.mark.slow
class TestThreadsExecutor(ExecutorSuite):
    def make(self, assignment: Assignment) -> Executor:
        return ThreadsExecutor(assignment)


@pytest.mark.slow
def test_files_may_be_moved_between_building_and_judging(tmp_path: Path) -> None:
    assignment = small_assignment(tmp_path)
    here, data = Here(assignment.payload), assignment.paths.data
    here.call(write_data, "val", data)
    built = Builder(here, assignment.limits).build(CUT, Target(), tmp_path / "far")
    assert [file.name for file in built.files] == ["model.onnx"]
    near = (tmp_path / "far").rename(tmp_path / "near")
    other = shutil.copytree(near, tmp_path / "other")
    with (other / "model.onnx").open("ab") as file:
        file.write(b"\0")
    judge = Judge(here, data, assignment.limits, "here")
    with pytest.raises(ArtifactError, match="not the file that was built"):
        judge.judge(built, other, Target(), step=2)
    verdict = judge.judge(built, near, Target(), step=2)
    assert verdict.parity["relative_error"] < 1e-3
    assert verdict.metrics["size_bytes"].mean == (near / "model.onnx").stat().st_size
    assert [file.name for file in near.iterdir()] == ["model.onnx"]
