"""A third party's executor passes the suite, and runs a study by its name."""

from __future__ import annotations

from threads_executor import ThreadsExecutor

from petra.execute.base import Assignment, Executor
from petra.testing.executor_suite import ExecutorSuite


class TestThreadsExecutor(ExecutorSuite):
    def make(self, assignment: Assignment) -> Executor:
        return ThreadsExecutor(assignment)
