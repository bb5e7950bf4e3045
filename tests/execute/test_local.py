"""petra's own executor against the suite that any executor must pass."""

from __future__ import annotations

import pytest

from petra.execute.base import Assignment, Executor
from petra.execute.local import LocalExecutor
from petra.testing.executor_suite import ExecutorSuite


@pytest.mark.slow  # what else it promises is tested on whole studies
class TestLocalExecutor(ExecutorSuite):
    def make(self, assignment: Assignment) -> Executor:
        return LocalExecutor(assignment)
