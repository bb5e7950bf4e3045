"""What docs/onnx.md says: its snippet run as it stands, its names and numbers those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx_files import convolutional

from petra.config import parse_config
from petra.methods.table import STAGES
from petra.model.imported.file import OPSETS
from petra.model.imported.layers import LAYERS
from petra.model.imported.operators import OPERATORS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text()


def test_it_says_what_is_read() -> None:
    assert f"Opsets {OPSETS[0]} to {OPSETS[-1]}" in DOCUMENT
    stages = re.findall(r"^\| `([\w.]+)` \|", DOCUMENT, flags=re.MULTILINE)
    assert len(stages) == 5
    assert set(stages) <= set(STAGES.names())


def test_it_lists_the_operators_that_are_read() -> None:
    listed = re.search(r"^Operators: (.*?)\n\n", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    assert listed is not None
    read = {*OPERATORS, *LAYERS, "Constant", "Upsample"}
    assert re.findall(r"`(\w+)`", listed[1]) == sorted(read)


def test_the_study_file_is_valid() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    config = parse_config(yaml.safe_load(text))
    assert config.model is not None
    assert config.model.args == {"path": "model.onnx"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "pictures.npz", pictures=x, labels=np.arange(300) % 10)
    convolutional(tmp_path / "model.onnx", channels=32)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "snippet"}
    short = code.replace('budget="5 min"', 'budget={"trials": 3}')
    assert short != code
    exec(compile(short, "onnx.md", "exec"), names)  # noqa: S102 - ours
    assert (tmp_path / "small" / "model.onnx").is_file()
