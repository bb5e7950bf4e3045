"""What others build petra's parts with: base classes and records under names that stay.

    from petra.plugins import Callback, register

    class Bell(Callback):
        name = "bell"

        def on_study_end(self, front, reason):
            print("\\a", end="")

    register("callback", "bell", Bell)

A package that is installed needs no `register`: it announces what it brings by entry points, in the
groups ``petra.stages``, ``petra.runtimes``, ``petra.searchers``, ``petra.metrics``,
``petra.executors`` and ``petra.callbacks``. docs/plugins.md has one of each, and `petra.testing` a
suite for each kind. Importing this module does not import torch; names load when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petra.callbacks.base import Callback, StudyRun
    from petra.core.errors import ArtifactError, DataError, ExportError, MissingExtra, StageRefused
    from petra.core.interface import Interface
    from petra.core.kernels import Kernels
    from petra.core.metric import Metric, Shown, task_metric
    from petra.core.notes import StepBegan, StepProgress
    from petra.core.registry import Registry
    from petra.core.target import Target
    from petra.core.trial import Origin, Proposal, StageTrace, Trial
    from petra.execute.base import Assignment, Executor
    from petra.front import Front
    from petra.listener import Clock
    from petra.methods.base import Context, FromModel, Stage, parameter, parameters
    from petra.runtimes.base import InputSpec, LoadedModel, Runtime
    from petra.search.base import Problem, Searcher, Suggestion
    from petra.search.options import SearchOptions, option
    from petra.space.domains import Choice, Integer, Real
    from petra.space.effects import (
        CUT_CHANNELS,
        DENSE_WEIGHTS,
        FLOAT_WEIGHTS,
        PLAIN_LAYERS,
        TRAINABLE,
        Effects,
    )
    from petra.space.moves import Move
    from petra.tasks.base import Task
    from petra.tasks.losses import Distance, Loss
    from petra.tasks.scorers import ItemScorer, ResampledScorer, Scorer

_HOMES = {
    "ArtifactError": "petra.core.errors",
    "Assignment": "petra.execute.base",
    "CUT_CHANNELS": "petra.space.effects",
    "Callback": "petra.callbacks.base",
    "Choice": "petra.space.domains",
    "Clock": "petra.listener",
    "Context": "petra.methods.base",
    "DENSE_WEIGHTS": "petra.space.effects",
    "DataError": "petra.core.errors",
    "Distance": "petra.tasks.losses",
    "Effects": "petra.space.effects",
    "Executor": "petra.execute.base",
    "ExportError": "petra.core.errors",
    "FLOAT_WEIGHTS": "petra.space.effects",
    "FromModel": "petra.methods.base",
    "Front": "petra.front",
    "InputSpec": "petra.runtimes.base",
    "Integer": "petra.space.domains",
    "Interface": "petra.core.interface",
    "ItemScorer": "petra.tasks.scorers",
    "Kernels": "petra.core.kernels",
    "LoadedModel": "petra.runtimes.base",
    "Loss": "petra.tasks.losses",
    "Metric": "petra.core.metric",
    "MissingExtra": "petra.core.errors",
    "Move": "petra.space.moves",
    "Origin": "petra.core.trial",
    "PLAIN_LAYERS": "petra.space.effects",
    "Problem": "petra.search.base",
    "Proposal": "petra.core.trial",
    "Real": "petra.space.domains",
    "ResampledScorer": "petra.tasks.scorers",
    "Runtime": "petra.runtimes.base",
    "Scorer": "petra.tasks.scorers",
    "SearchOptions": "petra.search.options",
    "Searcher": "petra.search.base",
    "Shown": "petra.core.metric",
    "Stage": "petra.methods.base",
    "StageRefused": "petra.core.errors",
    "StageTrace": "petra.core.trial",
    "StepBegan": "petra.core.notes",
    "StepProgress": "petra.core.notes",
    "StudyRun": "petra.callbacks.base",
    "Suggestion": "petra.search.base",
    "TRAINABLE": "petra.space.effects",
    "Target": "petra.core.target",
    "Task": "petra.tasks.base",
    "Trial": "petra.core.trial",
    "option": "petra.search.options",
    "parameter": "petra.methods.base",
    "parameters": "petra.methods.base",
    "task_metric": "petra.core.metric",
}
_TABLES = {
    "stage": "petra.methods.table:STAGES",
    "runtime": "petra.runtimes.table:RUNTIMES",
    "searcher": "petra.search.table:SEARCHERS",
    "metric": "petra.core.metric:METRICS",
    "executor": "petra.execute.table:EXECUTORS",
    "callback": "petra.callbacks.table:CALLBACKS",
    "move": "petra.space.table:MOVES",
}

__all__ = [
    "CUT_CHANNELS",
    "DENSE_WEIGHTS",
    "FLOAT_WEIGHTS",
    "PLAIN_LAYERS",
    "TRAINABLE",
    "ArtifactError",
    "Assignment",
    "Callback",
    "Choice",
    "Clock",
    "Context",
    "DataError",
    "Distance",
    "Effects",
    "Executor",
    "ExportError",
    "FromModel",
    "Front",
    "InputSpec",
    "Integer",
    "Interface",
    "ItemScorer",
    "Kernels",
    "LoadedModel",
    "Loss",
    "Metric",
    "MissingExtra",
    "Move",
    "Origin",
    "Problem",
    "Proposal",
    "Real",
    "ResampledScorer",
    "Runtime",
    "Scorer",
    "SearchOptions",
    "Searcher",
    "Shown",
    "Stage",
    "StageRefused",
    "StageTrace",
    "StepBegan",
    "StepProgress",
    "StudyRun",
    "Suggestion",
    "Target",
    "Task",
    "Trial",
    "forget",
    "option",
    "parameter",
    "parameters",
    "register",
    "task_metric",
]


def register(kind: str, name: str, item: object) -> None:
    """Make something known to this process, and to the workers of its studies, under a name: a
    class, of a metric or a move its record, of an executor what makes one of an `Assignment`.

    `kind`: "stage", "runtime", "searcher", "metric", "executor", "callback" or "move". What is
    registered takes part at once: stages in a search over all of them, moves in every search.
    Raises ConfigError for another kind and for a name that is taken.
    """
    _table(kind).register(name, item)


def forget(kind: str, *names: str) -> None:
    """Take back what was registered; names that are not are passed over."""
    _table(kind).forget(*names)


def _table(kind: str) -> Registry[Any]:
    from petra.core.errors import ConfigError, did_you_mean

    if kind not in _TABLES:
        raise ConfigError(f"kind: got {kind!r}", hint=did_you_mean(kind, _TABLES))
    module, _, attribute = _TABLES[kind].partition(":")
    found: Registry[Any] = getattr(importlib.import_module(module), attribute)
    return found


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'petra.plugins' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
