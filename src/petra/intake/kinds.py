"""What is given for the model and for the task, told apart by name; each wrong object has its own
remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from petra.core.errors import DataError
from petra.tasks.base import Task
from petra.tasks.data import Split

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
LOAD_HINT = "build the model and load them into it: model = Net(); model.load_state_dict(...)"
TASK_HINT = "make one of the splits: petra.classification(train, val, test), or petra.regression"
_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")


def as_model(model: Any) -> nn.Module:
    """The module that computes: without what torch.compile and data parallelism wrap around it.

    Raises DataError, with what to write instead, for anything that is no nn.Module of Python code.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise DataError(
            "the model is TorchScript, whose layers cannot be changed",
            hint="give the nn.Module that it was scripted or traced from",
        )
    if isinstance(model, nn.Module):
        return unwrapped(model)
    said, hint = _not_a_model(model)
    raise DataError(f"the model is {said}, not a torch.nn.Module", hint=hint)


def unwrapped(module: nn.Module) -> nn.Module:
    """What is inside the wrappers that compile a module or spread it over devices."""
    while True:
        inner = (
            getattr(module, "_orig_mod", None)
            if not isinstance(module, WRAPPERS)
            else module.module
        )
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def as_task(task: Any) -> Task:
    """The task itself. Raises DataError, with what to write instead, for anything else."""
    if isinstance(task, Task):
        raw = next((name for name, split in task.splits() if not isinstance(split, Split)), None)
        if raw is None:
            return task
        raise DataError(
            f"the task's {raw} is {type(getattr(task, raw)).__name__}, not a Split",
            hint="let __post_init__ of the subclass begin with super().__post_init__()",
        )
    if isinstance(task, type) and issubclass(task, Task):
        said = f"the class {task.__name__}"
    elif isinstance(task, nn.Module):
        raise DataError("the task is a model", hint="compress(model, task): is the order right?")
    elif isinstance(task, DataLoader | Dataset | Split | Tensor | tuple | list | Mapping):
        said = f"data ({type(task).__name__})"
    elif callable(task) and getattr(task, "__name__", "") in (
        "classification",
        "forecasting",
        "regression",
        "task",
    ):
        raise DataError(
            f"the task is the function {task.__name__}",
            hint=f"call it: petra.{task.__name__}(train, val, test)",
        )
    else:
        said = (
            repr(task)[:60] if isinstance(task, str | None | int | float) else type(task).__name__
        )
    raise DataError(f"the task is {said}, not a petra.Task", hint=TASK_HINT)


def _not_a_model(model: object) -> tuple[str, str]:
    """What a wrong object is, and what to write instead."""
    for applies, said, hint in _MISTAKES:
        if applies(model):
            return said(model), hint
    return type(model).__name__, "allowed: a trained torch.nn.Module"


def _of_library(*names: str) -> Callable[[Any], bool]:
    return lambda m: any(base.__module__.split(".")[0] in names for base in type(m).__mro__)


def _is_path(m: object, *suffixes: str) -> bool:
    return isinstance(m, str | Path) and (not suffixes or str(m).lower().endswith(suffixes))


def _is_checkpoint(m: object) -> bool:
    return isinstance(m, Mapping) and any(
        isinstance(m.get(k), Mapping | nn.Module) for k in _CHECKPOINT_KEYS
    )


def _checkpoint(m: Any) -> str:
    key = next(k for k in _CHECKPOINT_KEYS if isinstance(m.get(k), Mapping | nn.Module))
    return f"a checkpoint dict, with the model under {key!r}"


Mistake = tuple[Callable[[Any], bool], Callable[[Any], str], str]
_ONNX = "give the path of the file: petra.compress('model.onnx', task)"
_MISTAKES: tuple[Mistake, ...] = (
    (lambda m: _is_path(m, ".onnx"), lambda m: f"a path ({m})", _ONNX),
    (
        _is_path,
        lambda m: f"a path ({m})",
        "load it: model = Net(); model.load_state_dict(torch.load(path))",
    ),
    (lambda m: m is None, lambda m: "None", "does the function that makes it return it?"),
    (
        lambda m: isinstance(m, type),
        lambda m: f"the class {m.__name__}",
        "make one of it and load its weights: model = Net(...); model.load_state_dict(...)",
    ),
    (
        lambda m: isinstance(m, Task),
        lambda m: "a task",
        "compress(model, task): is the order right?",
    ),
    (
        lambda m: isinstance(m, DataLoader | Dataset | Split),
        lambda m: f"data ({type(m).__name__})",
        "compress(model, petra.classification(train, val, test))",
    ),
    (_is_checkpoint, _checkpoint, LOAD_HINT),
    (
        lambda m: (
            isinstance(m, Mapping) and bool(m) and all(isinstance(v, Tensor) for v in m.values())
        ),
        lambda m: f"a state dict of {len(m)} tensors",
        LOAD_HINT,
    ),
    (
        lambda m: isinstance(m, Mapping),
        lambda m: f"a dict with the keys {', '.join(map(str, m))[:60]}",
        LOAD_HINT,
    ),
    (
        lambda m: isinstance(m, torch.export.ExportedProgram),
        lambda m: "an exported program",
        "give the nn.Module that it was exported from",
    ),
    (_of_library("onnx", "onnxruntime"), lambda m: f"an ONNX object ({type(m).__name__})", _ONNX),
    (
        _of_library("sklearn", "xgboost", "lightgbm", "catboost", "sktime", "aeon"),
        lambda m: f"an estimator ({type(m).__name__})",
        (
            "petra compresses PyTorch models; of an estimator around one, give the module inside,"
            " e.g. estimator.module_"
        ),
    ),
    (
        _of_library("keras", "tensorflow", "jax", "flax"),
        lambda m: f"a {type(m).__module__.split('.')[0]} model",
        "petra compresses PyTorch models: port it, or find its PyTorch weights",
    ),
    (
        lambda m: isinstance(m, tuple | list),
        lambda m: f"a {type(m).__name__} of {len(m)}",
        "give the one module: model, or nn.Sequential(*layers)",
    ),
    (lambda m: isinstance(m, Tensor), lambda m: "a tensor", "give the module that holds it"),
    (
        lambda m: callable(m) and hasattr(m, "__name__"),
        lambda m: f"a function ({m.__name__})",
        (
            "wrap it: class Net(nn.Module) with its layers as attributes and the function's body as"
            " forward"
        ),
    ),
)
