"""Objects that are no model and no task are told by name, with what to give instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from intake_models import TASK, Net, X, Y
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import petra
from petra.core.errors import DataError

# ---- wrong objects -------------------------------------------------------------------------------


class Estimator:
    """As sktime or skorch have them."""

    def fit(self, X: object, y: object) -> None: ...

    def predict(self, X: object) -> None: ...


MODELS: dict[str, tuple[Callable[[], object], str, str]] = {
    "ONNX path that is none": (lambda: "model.onnx", "no such file", "path of an .onnx file"),
    "path": (lambda: Path("weights.pt"), "a path", "load_state_dict"),
    "None": (lambda: None, "None", "return"),
    "class": (lambda: Net, "the class Net", "make one"),
    "state dict": (lambda: Net().state_dict(), "a state dict of 4 tensors", "load_state_dict"),
    "checkpoint": (
        lambda: {"epoch": 3, "state_dict": Net().state_dict()},
        "under 'state_dict'",
        "load_state_dict",
    ),
    "checkpoint with a model": (lambda: {"model": Net()}, "under 'model'", "load"),
    "script": (lambda: torch.jit.script(nn.Linear(8, 4)), "TorchScript", "scripted or traced from"),
    "traced script": (
        lambda: torch.jit.trace(Net(), X[:2]),
        "TorchScript",
        "scripted or traced from",
    ),
    "exported program": (
        lambda: torch.export.export(Net(), (X[:2],)),
        "an exported program",
        "exported from",
    ),
    "estimator": (LogisticRegression, "an estimator", "the module inside"),
    "another class": (Estimator, "Estimator", "torch.nn.Module"),
    "lambda": (lambda: lambda x: x, "a function", "wrap it"),
    "function": (lambda: functional.relu, "a function", "wrap it"),
    "tuple": (lambda: (Net(), None), "a tuple of 2", "the one module"),
    "tensor": (lambda: X, "a tensor", "the module"),
    "data": (lambda: DataLoader(TensorDataset(X, Y)), "data", "petra.classification"),
    "task": (lambda: TASK, "a task", "order"),
    "number": (lambda: 3, "int", "torch.nn.Module"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_no_model_is_told_by_name(kind: str, tmp_path: Path) -> None:
    build, said, hint = MODELS[kind]
    with pytest.raises(DataError, match=said) as caught:
        petra.compress(build(), TASK, workdir=tmp_path / "study")  # type: ignore[arg-type]
    assert hint in caught.value.hint
    assert not (tmp_path / "study").exists()


def test_paths_for_data_are_refused_where_they_are_given() -> None:
    with pytest.raises(DataError, match="train split: got the path 'train'"):
        petra.classification("train", "val", "test")


TASKS: dict[str, tuple[object, str]] = {
    "loader": (DataLoader(TensorDataset(X, Y)), "data (DataLoader)"),
    "dataset": (TensorDataset(X, Y), "data (TensorDataset)"),
    "tuple": ((X, Y), "data (tuple)"),
    "dict": ({"train": (X, Y)}, "data (dict)"),
    "class": (type(TASK), "the class Classification"),
    "function": (petra.classification, "the function classification"),
    "text": ("classification", "'classification'"),
    "None": (None, "None"),
    "model": (Net(), "a model"),
    "number": (3, "3"),
}


@pytest.mark.parametrize("kind", TASKS)
def test_what_is_no_task_is_told_by_name(kind: str, tmp_path: Path) -> None:
    given, said = TASKS[kind]
    with pytest.raises(DataError, match="the task is") as caught:
        petra.compress(Net(), given, workdir=tmp_path / "study")  # type: ignore[arg-type]
    assert said in caught.value.message
    assert "petra." in caught.value.hint or "order" in caught.value.hint
    assert not (tmp_path / "study").exists()
