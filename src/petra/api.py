"""The Python entry points: `compress` live objects, open a study from a file, look at a finished one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from petra.config import StudyConfig, load_config, parse_config
from petra.core.errors import ConfigError, StoreError
from petra.intake import as_model, as_task, check_device
from petra.measure.host import describe_host
from petra.problem import build_space, check_searcher, initial_pipelines
from petra.progress import Listener
from petra.runtimes.base import Target
from petra.sources import resolve_source
from petra.store.store import Store
from petra.study import Study
from petra.tasks.base import Task


def compress(
    model: nn.Module,
    task: Task,
    *,
    target: str | Target | Mapping[str, Any] = "onnxruntime",
    objectives: Iterable[str] = ("quality", "latency", "size"),
    constraints: str | Iterable[str] = (),
    budget: float | str | Mapping[str, Any] = "10 min",
    search: str | Mapping[str, Any] = "evolution",
    space: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    seed: int = 0,
    workdir: str | Path = "petra-study",
    listener: Listener | None = None,
) -> Study:
    """Search for compressed versions of `model` and return the finished study.

    `task` comes from `petra.classification`, `petra.regression` or a subclass of `petra.Task`. `budget` is a time
    ("20 min", seconds) or a mapping with any of time, trials, generations, goal. The other arguments are as in a study
    file. If `workdir` holds a study of the same model, data and settings, it is continued (a larger budget is taken
    over). The model is not modified.

    >>> study = petra.compress(model, petra.classification(train, val, test), budget="10 min")
    >>> study.front.pick("knee").export("model.onnx")

    Raises ConfigError, DataError, ExportError or StoreError with one message that says what to do.
    """
    data: dict[str, Any] = {
        "target": _target(target),
        "objectives": tuple(objectives),
        "constraints": (constraints,) if isinstance(constraints, str) else tuple(constraints),
        "budget": dict(budget) if isinstance(budget, Mapping) else {"time": budget},
        "search": search,
        "seed": seed,
        "workdir": str(workdir),
    }
    data |= {key: dict(value) for key, value in (("space", space), ("limits", limits)) if value is not None}
    config = parse_config(data, where="petra.compress")
    return create_or_continue(config, model, task).run(listener)


def _target(target: str | Target | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(target, str):
        return {"runtime": target}
    return dict(vars(target)) if isinstance(target, Target) else dict(target)


def load_study(directory: str | Path) -> Study:
    """A study for reading; and for running too, when its configuration names the model and the data."""
    directory = Path(directory)
    with Store.open(directory, write=False) as store:
        config = parse_config(store.config, where=str(directory))
    return Study(directory, config, model=None, task=None)


def resume_study(directory: str | Path, *, budget: Mapping[str, Any] | None = None) -> Study:
    """A study ready to run on, its model and data built anew from its configuration."""
    study = load_study(directory)
    config = study.config
    if not config.has_source:
        raise ConfigError(
            f"{directory}: this study was started from live Python objects",
            hint="call petra.compress(model, task, workdir=...) with the same model and task to continue it",
        )
    if budget:
        config = parse_config(config.model_dump() | {"budget": dict(budget)}, where="budget")
    model, task = resolve_source(config)
    return create_or_continue(config.model_copy(update={"workdir": str(directory)}), model, task)


def live_study(directory: str | Path) -> Study:
    """A study with its model and data built anew from its configuration; nothing of it is changed or locked."""
    study = load_study(directory)
    if not study.config.has_source:
        raise ConfigError(
            f"{directory}: this study was started from live Python objects",
            hint="use the Study that petra.compress returns for the same model and task",
        )
    model, task = resolve_source(study.config)
    return Study(study.directory, study.config, model=model, task=task)


def study_from_file(path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Study:
    """A study ready to run from a YAML file; `overrides` replace top-level keys."""
    config = load_config(Path(path))
    if overrides:
        config = parse_config(config.model_dump() | dict(overrides), where=str(path))
    if not config.has_source:
        raise ConfigError(
            f"{path}: neither workload nor model and task are given", hint="for example: workload: digits"
        )
    model, task = resolve_source(config)
    return create_or_continue(config, model, task)


# What may differ between the sessions of one study: nothing that changes what is proposed or how it is judged.
_MAY_CHANGE = frozenset({"budget", "limits", "workdir"})


def create_or_continue(config: StudyConfig, model: nn.Module, task: Task) -> Study:
    """The study in `config.workdir`, created if there is none; refused if there is a different one.

    Model and data are examined before anything is written.
    """
    as_model(model), as_task(task)
    directory = Path(config.workdir)
    study = Study(directory, config, model=model, task=task)
    check_searcher(config)
    check_device(config.device)
    initial_pipelines(config, build_space(config, task))  # refuse a bad space before anything is written
    wanted = config.model_dump(mode="json")
    if Store.exists(directory):
        with Store.open(directory, write=True) as store:
            stored = parse_config(store.config, where=str(directory)).model_dump(mode="json")
            changed = sorted(k for k in wanted if k not in _MAY_CHANGE and wanted[k] != stored[k])
            if changed:
                raise StoreError(
                    f"{directory}: holds a study with other settings ({', '.join(changed)})",
                    hint="choose another workdir, or give the same settings to continue that study",
                )
            store.set_config(wanted)
    else:
        study.examined  # noqa: B018 - refuses what is not sound
        Store.create(directory, wanted, describe_host()).close()
    return study
