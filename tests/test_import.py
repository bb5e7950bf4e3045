"""Importing petra costs nothing heavy; its names are there when used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import petra

HEAVY = (
    "torch",
    "torchao",
    "torch_pruning",
    "onnx",
    "onnxruntime",
    "plotly",
    "pandas",
    "sqlalchemy",
    "sklearn",
)


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement."""
    code = (
        f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in"
        " sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_petra_loads_nothing_heavy() -> None:
    assert not loaded_after("import petra") & set(HEAVY)


def test_the_measuring_process_never_loads_torch() -> None:
    statement = "import petra.measure.bench_main as m; m.runtime_for(m.Target('onnxruntime'))"
    assert "torch" not in loaded_after(statement)


def test_every_public_name_is_there() -> None:
    for name in petra.__all__:
        assert getattr(petra, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = petra.nothing
