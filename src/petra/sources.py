"""Where a study file's model and data come from: a built-in workload, or a function of the user's.

A function that a study names is code. It is called when a person names it (a study file, a call of
petra.compress), and otherwise only when the study was started by this user on this machine, or when
the person says to trust it: `check_trust`. Built-in workloads are petra's own code and need no
trust, unless an argument names a file: which file is read is then the study's choice.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from petra.config import CallConfig, StudyConfig
from petra.core.announced import not_installed
from petra.core.errors import ConfigError, StoreError
from petra.core.text import first_line, printable, shown
from petra.intake import received
from petra.store import checked
from petra.store.started import known_elsewhere, remember, remembered
from petra.store.store import Store
from petra.tasks.base import Task
from petra.workloads.table import WORKLOADS

PLACES_NOTE = "source_path"  # where the modules that a study names were looked for
IDENTITY_NOTE = "identity"
_SHOWN = 2000  # characters of arguments in a message


def study_places(store: Store) -> tuple[str, ...]:
    """The directories in which the modules that a study names were looked for at its start."""
    note = store.note(PLACES_NOTE)
    listed = [note] if isinstance(note, str) else note or []
    try:
        return tuple(checked.text(p, "a path") for p in checked.sequence(listed, PLACES_NOTE))
    except ValueError as error:
        raise StoreError(f"{store.directory} is damaged: note {error}") from None


def calls(config: StudyConfig, places: Iterable[str]) -> str:
    """What resolving the configuration would call that is not petra's alone: one line each, in
    which nothing is left out; '' when there is nothing."""
    lines = []
    if config.workload is not None and (files := _file_arguments(config)):
        lines.append(f"workload: {json.dumps(config.workload.name)} with files {_dumped(files)}")
    for name, call in (("model", config.model), ("task", config.task)):
        if call is not None:
            lines.append(f"{name}: {json.dumps(call.call)} with {_dumped(call.args)}")
    lines += [f"callback: {json.dumps(c.name)} with {_dumped(c.args)}" for c in config.callbacks]
    if config.model is not None:
        lines.append(f"modules from: {_dumped(list(places))}")
    return "\n".join(lines)


def _dumped(data: object) -> str:
    return json.dumps(data, sort_keys=True, default=str)


def _file_arguments(config: StudyConfig) -> dict[str, Any]:
    """Arguments of a workload that may name files: all that are no numbers and no known names."""
    if config.workload is None or config.workload.name not in WORKLOADS:
        return {}
    harmless = {"task", "model", "name", "network", "metric", "metrics"}  # keys of tables
    args = config.workload.args
    return {
        k: v for k, v in args.items() if k not in harmless and not isinstance(v, int | float | None)
    }


def check_trust(store: Store, config: StudyConfig, *, trust: bool) -> None:
    """Raise StoreError, saying what would be called, unless that was started here or is trusted."""
    called = calls(config, study_places(store))
    identity = str(store.note(IDENTITY_NOTE) or "")
    directory = store.directory
    if not called or trust or (identity and remembered(identity, directory, called)):
        return
    moved = known_elsewhere(identity, directory)
    how = "was moved or copied since it was started" if moved else "was not started here by you"
    shown = [line if len(line) <= _SHOWN else f"{line[:_SHOWN]} ..." for line in called.split("\n")]
    raise StoreError(
        f"{directory}: this study {how}; going on with it would call\n  "
        + "\n  ".join(printable(line) for line in shown),
        hint=(
            "if you trust whoever made it, say --trust (in Python: trust=True); or run its study "
            f"file: petra run STUDY.yaml --workdir {directory}"
        ),
    )


def remember_start(store: Store, config: StudyConfig) -> str:
    """Record that this user started the study here; '' or why it could not be recorded."""
    called = calls(config, study_places(store))
    identity = str(store.note(IDENTITY_NOTE) or "")
    return remember(identity, store.directory, called) if called and identity else ""


def find_modules(config: StudyConfig, places: Iterable[str | Path]) -> None:
    """Make the modules that a configuration names importable from `places`.

    They come after all that is installed, so that a file that happens to lie there stands in for
    nothing else. Raises ConfigError when a module it names is then hidden by an installed one.
    """
    directories = [str(place) for place in places if Path(place).is_absolute()]
    for call in (config.model, config.task):
        top = call.call.partition(":")[0].partition(".")[0] if call else ""
        beside = (
            [p for d in directories for p in _module_files(d, top) if p.is_file()] if top else []
        )
        other = _origin(top) if beside else None
        if other is not None and other not in [str(path.resolve()) for path in beside]:
            raise ConfigError(
                f"{top!r} is the name of {beside[0]} and of another module"
                f" ({other or 'a package'})",
                hint="rename the file",
            )
    added = [d for d in dict.fromkeys(directories) if d not in sys.path]
    not_installed(added)
    sys.path.extend(added)


def _origin(top: str) -> str | None:
    """Where a module is imported from without more places: a file, '' when it has none, None when
    there is no such module.
    """
    if top in sys.modules:
        file = getattr(sys.modules[top], "__file__", None)
    else:
        found = importlib.util.find_spec(top)
        if found is None:
            return None
        file = found.origin
    return str(Path(file).resolve()) if file else ""


def _module_files(directory: str, top: str) -> tuple[Path, Path]:
    return Path(directory, f"{top}.py"), Path(directory, top, "__init__.py")


def located(config: StudyConfig, places: Iterable[str | Path]) -> StudyConfig:
    """The configuration with the path of the ONNX file that it names in full: as it lies in the
    first of `places` that has it.
    """
    if config.model is None or not config.model.file:
        return config
    given = Path(config.model.file)
    found = next((path for place in places if (path := Path(place, given)).is_file()), given)
    full = config.model.model_copy(update={"args": {"path": str(found.absolute())}})
    return config.model_copy(update={"model": full})


def resolve_source(config: StudyConfig) -> tuple[nn.Module, Task]:
    """Build the model and the task a configuration names; of an ONNX file, as `received` says.

    Raises ConfigError with the path of what is wrong.
    """
    if config.workload is not None:
        try:
            build = WORKLOADS.get(config.workload.name).bound()
        except ConfigError as error:
            raise ConfigError(f"workload: {error.message}", hint=error.hint) from None
        _check_arguments(build, config.workload.args, where="workload.args")
        try:
            return build(**config.workload.args)
        except (TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
            if not config.workload.args:
                raise
            raise ConfigError(
                f"workload.args: {shown(dict(config.workload.args))}: {first_line(str(error))}",
                hint=f"its arguments are {inspect.signature(build)}",
            ) from error
    if config.model is None or config.task is None:
        raise ConfigError(
            "neither workload nor model and task are given", hint="for example: workload: digits"
        )
    model, task = _call(config.model, where="model"), _call(config.task, where="task")
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model.call: {config.model.call} returned {type(model).__name__}",
            hint="return an nn.Module",
        )
    if not isinstance(task, Task):
        raise ConfigError(
            f"task.call: {config.task.call} returned {type(task).__name__}",
            hint=(
                "return petra.classification(train, val, test), petra.regression(...) or another"
                " petra.Task"
            ),
        )
    return received(model, task, config.target)


def _call(config: CallConfig, *, where: str) -> object:
    module_name, _, attribute = config.call.partition(":")
    try:
        function: Any = importlib.import_module(module_name)
    except (ImportError, ValueError, SyntaxError) as error:  # a name such as "a..b", a broken file
        raise ConfigError(
            f"{where}.call: cannot import {module_name!r}: {error}",
            hint=(
                "modules are looked for beside the study file, in the current directory and in the"
                " environment"
            ),
        ) from error
    for part in attribute.split("."):
        if not hasattr(function, part):
            raise ConfigError(f"{where}.call: {module_name} has no {attribute!r}")
        function = getattr(function, part)
    if not callable(function):
        raise ConfigError(
            f"{where}.call: {config.call} is a {type(function).__name__}",
            hint="name a function or class",
        )
    _check_arguments(function, config.args, where=f"{where}.args")
    return function(**config.args)


def _check_arguments(
    function: Callable[..., object], args: Mapping[str, Any], *, where: str
) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(**args)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}", hint=f"its arguments are {signature}") from None
