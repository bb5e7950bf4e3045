"""The worker that the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from petra.workers.isolate import Worker


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for the whole file: every test also shows that the faults before it did no lasting
    harm.
    """
    with Worker(tmp_path_factory.mktemp("log") / "worker.log", threads=1) as worker:
        worker.start({"numbers": [1, 2, 3]})
        yield worker
