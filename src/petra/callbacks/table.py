"""The table of callbacks by the names that study files use. A new callback is one new file and one
line here.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from petra.callbacks.base import Callback
from petra.callbacks.check import check_callback
from petra.config import CallbackConfig
from petra.core.announced import subclass_of
from petra.core.errors import ConfigError
from petra.core.registry import Registry

CALLBACKS: Registry[type[Callback]] = Registry(
    "callback",
    {
        "csv": "petra.callbacks.csv_file:CsvFile",
        "mlflow": "petra.callbacks.mlflow_runs:MlflowRuns",
        "tensorboard": "petra.callbacks.tensorboard_events:TensorBoardEvents",
        "wandb": "petra.callbacks.wandb_run:WandbRun",
    },
    group="petra.callbacks",
    check=subclass_of("petra.callbacks.base:Callback"),
)


def make_callbacks(named: Sequence[CallbackConfig]) -> tuple[Callback, ...]:
    """The callbacks that a study file names, made with their arguments.

    Raises ConfigError, with the path, for an unknown name or arguments that it does not take, and
    MissingExtra where a library is not installed.
    """
    return tuple(_made(one, where=f"callbacks[{i}]") for i, one in enumerate(named))


def _made(given: CallbackConfig, *, where: str) -> Callback:
    try:
        kind = CALLBACKS.get(given.name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    signature = inspect.signature(kind)
    try:
        signature.bind(**given.args)
    except TypeError as error:
        raise ConfigError(f"{where}.args: {error}", hint=f"its arguments are {signature}") from None
    made = kind(**given.args)
    check_callback(made, where=f"{where}: {given.name}")
    return made
