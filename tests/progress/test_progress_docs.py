"""The snippets of docs/progress.md, run as they stand with made-up results."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import petra
from petra.testing.recorded import RecordedExecutor

DOCUMENT = Path(__file__).parents[2] / "docs" / "progress.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


def test_the_snippets_run_and_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(petra, "compress", partial(petra.compress, executor=RecordedExecutor))
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    names = {"petra": petra, "model": model, "task": petra.classification(*[(x, y)] * 3)}
    for snippet in SNIPPETS:
        exec(snippet, names)  # noqa: S102 - our own document
    shown = capsys.readouterr()
    assert len(SNIPPETS) == 3
    assert "Study('my-study': 6 trials" in shown.out
    assert "\nMember(" in shown.out
    assert "prune.depth " in shown.out
    for phase in ("examining model and data", "measuring the untouched model", "searching"):
        assert f"\n{phase}\n" in f"\n{shown.err}"
        assert f"| {phase} |" in DOCUMENT.read_text(encoding="utf-8")
