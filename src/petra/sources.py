"""Where a study file's model and data come from: a built-in workload, or a function of the user's."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from petra.config import CallConfig, StudyConfig
from petra.core.errors import ConfigError
from petra.tasks.base import Task
from petra.workloads.table import WORKLOADS


def resolve_source(config: StudyConfig) -> tuple[nn.Module, Task]:
    """Build the model and the task a configuration names. Raises ConfigError with the path of what is wrong."""
    if config.workload is not None:
        build = WORKLOADS.get(config.workload.name)
        _check_arguments(build, config.workload.args, where="workload.args")
        return build(**config.workload.args)
    if config.model is None or config.task is None:
        raise ConfigError("neither workload nor model and task are given", hint="for example: workload: digits")
    model, task = _call(config.model, where="model"), _call(config.task, where="task")
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model.call: {config.model.call} returned {type(model).__name__}", hint="return an nn.Module"
        )
    if not isinstance(task, Task):
        raise ConfigError(
            f"task.call: {config.task.call} returned {type(task).__name__}",
            hint="return petra.classification(train, val, test), petra.regression(...) or another petra.Task",
        )
    return model, task


def _call(config: CallConfig, *, where: str) -> object:
    module_name, _, attribute = config.call.partition(":")
    try:
        function: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{where}.call: cannot import {module_name!r}: {error}",
            hint="modules are looked for beside the study file, in the current directory and in the environment",
        ) from error
    for part in attribute.split("."):
        if not hasattr(function, part):
            raise ConfigError(f"{where}.call: {module_name} has no {attribute!r}")
        function = getattr(function, part)
    if not callable(function):
        raise ConfigError(
            f"{where}.call: {config.call} is a {type(function).__name__}", hint="name a function or class"
        )
    _check_arguments(function, config.args, where=f"{where}.args")
    return function(**config.args)


def _check_arguments(function: Callable[..., object], args: Mapping[str, Any], *, where: str) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(**args)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}", hint=f"its arguments are {signature}") from None
