"""A study in a real notebook kernel: one box that is updated in place, and the views of what comes
back. Needs ipykernel and jupyter-client, which are no dependencies.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import petra

pytest.importorskip("ipykernel")
jupyter_client = pytest.importorskip("jupyter_client")

CELL = """
import sys
sys.path.insert(0, {tests!r})
from runs_a_study import run
study = run({place!r})
study
"""


def said_by_a_kernel(code: str) -> list[dict[str, Any]]:
    """All messages of a cell's run."""
    here = str(Path(petra.__file__).parents[1])
    places = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH", ""))))
    manager = jupyter_client.KernelManager()
    manager.start_kernel(env=os.environ | {"PYTHONPATH": places})
    client = manager.blocking_client()
    found: list[dict[str, Any]] = []
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        answer = client.execute_interactive(code, output_hook=found.append, timeout=120)
        assert answer["content"]["status"] == "ok", answer["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return found


@pytest.mark.slow
def test_a_notebook_has_one_box_that_is_updated_in_place(tmp_path: Path) -> None:
    tests, place = str(Path(__file__).parent), str(tmp_path / "study")
    told = said_by_a_kernel(CELL.format(tests=tests, place=place))
    kinds = [message["msg_type"] for message in told]
    assert kinds.count("display_data") == 1
    assert kinds.count("update_display_data") > 2
    assert "stream" not in kinds, "nothing is written beside it"
    boxes = [m["content"] for m in told if m["msg_type"] in ("display_data", "update_display_data")]
    assert len({box["transient"]["display_id"] for box in boxes}) == 1
    pages = [box["data"]["text/html"] for box in boxes]
    assert any("trial 4: " in page and "<progress" in page for page in pages)
    assert "<progress" not in pages[-1]
    assert "front: " in pages[-1] or "The front is empty" in pages[-1]
    (result,) = [m["content"]["data"] for m in told if m["msg_type"] == "execute_result"]
    assert result["text/plain"].startswith("Study(")
    assert "petra-view" in result["text/html"]
