"""petra: search over training and compression pipelines for the Pareto set of deployable neural
networks.

    study = petra.compress(model, petra.classification(train, val, test), budget="10 min")
    print(study.front)
    study.front.pick("knee").export("model.onnx")

Importing petra does not import torch; the names below do when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from petra.core.noise import hush

__version__ = "0.1.0"

if TYPE_CHECKING:
    from petra import data, plugins
    from petra.api import compress, load_study
    from petra.callbacks.base import Callback
    from petra.core.errors import PetraError
    from petra.core.measurement import Measurement
    from petra.core.pipeline import Pipeline, StageSpec
    from petra.core.ragged import Padding
    from petra.core.target import Target
    from petra.methods.adapt.files import load_modules, save_modules
    from petra.model.layers.rescaled import Rescaled
    from petra.rechecked import recheck
    from petra.report.explained import explain
    from petra.saved_models import pretrained
    from petra.study import Study
    from petra.tasks.base import Task
    from petra.tasks.classification import classification
    from petra.tasks.embeddings import embeddings
    from petra.tasks.forecasting import forecasting
    from petra.tasks.losses import Loss
    from petra.tasks.own import task
    from petra.tasks.ragged import ragged
    from petra.tasks.regression import regression
    from petra.tasks.scorers import Scorer, scorer
    from petra.tasks.torchmetric import torch_metric
    from petra.transferred import transfer

_HOMES = {
    "Callback": "petra.callbacks.base",
    "Padding": "petra.core.ragged",
    "Loss": "petra.tasks.losses",
    "Measurement": "petra.core.measurement",
    "Pipeline": "petra.core.pipeline",
    "PetraError": "petra.core.errors",
    "Rescaled": "petra.model.layers.rescaled",
    "Scorer": "petra.tasks.scorers",
    "StageSpec": "petra.core.pipeline",
    "Study": "petra.study",
    "Target": "petra.core.target",
    "Task": "petra.tasks.base",
    "classification": "petra.tasks.classification",
    "compress": "petra.api",
    "embeddings": "petra.tasks.embeddings",
    "explain": "petra.report.explained",
    "forecasting": "petra.tasks.forecasting",
    "load_modules": "petra.methods.adapt.files",
    "load_study": "petra.api",
    "pretrained": "petra.saved_models",
    "ragged": "petra.tasks.ragged",
    "recheck": "petra.rechecked",
    "regression": "petra.tasks.regression",
    "save_modules": "petra.methods.adapt.files",
    "scorer": "petra.tasks.scorers",
    "task": "petra.tasks.own",
    "torch_metric": "petra.tasks.torchmetric",
    "transfer": "petra.transferred",
}

_ROOMS = ("data", "plugins")
"""What is used as it is: ``petra.data.split(...)``."""

__all__ = [
    "Callback",
    "Loss",
    "Measurement",
    "Padding",
    "PetraError",
    "Pipeline",
    "Rescaled",
    "Scorer",
    "StageSpec",
    "Study",
    "Target",
    "Task",
    "classification",
    "compress",
    "data",
    "embeddings",
    "explain",
    "forecasting",
    "load_modules",
    "load_study",
    "plugins",
    "pretrained",
    "ragged",
    "recheck",
    "regression",
    "save_modules",
    "scorer",
    "task",
    "torch_metric",
    "transfer",
]


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f"petra.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'petra' has no attribute {name!r}")
    hush()  # before what is loaded now loads libraries that talk
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
