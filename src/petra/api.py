"""The Python entry points: `compress` live objects, open a study from a file, look at a finished
one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from petra.brought import check_brought, note_brought
from petra.callbacks.check import named_and_given
from petra.callbacks.table import make_callbacks
from petra.config import StudyConfig, load_config, parse_config
from petra.continued import take_over
from petra.core.errors import ConfigError
from petra.core.target import Target
from petra.execute.base import MakeExecutor
from petra.intake import as_model, as_task, check_device, received
from petra.listener import Listener, Phase
from petra.measure.host import describe_host
from petra.problem import check_directions, check_metrics, check_settings
from petra.progress.ending import conclude
from petra.progress.show import showing
from petra.recipes import recipe_notes
from petra.report.record import StudyRecord
from petra.sources import (
    IDENTITY_NOTE,
    PLACES_NOTE,
    check_trust,
    find_modules,
    located,
    remember_start,
    resolve_source,
    study_places,
)
from petra.store.layout import check_writable
from petra.store.store import Store
from petra.study import EXAMINING, Study
from petra.tasks.base import Task

Note = Callable[[str], None]
LOADING = Phase("loading model and data")


def unsaid(text: str) -> None:
    """Nobody asked to be told."""


def compress(
    model: nn.Module | str | Path,
    task: Task,
    *,
    target: str | Target | Mapping[str, Any] = "onnxruntime",
    objectives: Iterable[str] = ("quality", "latency", "size"),
    constraints: str | Iterable[str] = (),
    budget: float | str | Mapping[str, Any] = "10 min",
    search: str | Mapping[str, Any] = "surrogate",
    space: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    savings: Mapping[str, Any] | None = None,
    prior: Mapping[str, Any] | None = None,
    virtual_workers: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    executor: str | MakeExecutor = "local",
    workdir: str | Path = "petra-study",
    listener: Listener | None = None,
    callbacks: str | Iterable[object] = (),
    progress: bool = True,
) -> Study:
    """Search for compressed versions of `model` and return the finished study.

    `model` is a PyTorch model, or the path of an ONNX file, which is quantized and not trained.
    `task` comes from `petra.classification`, `petra.regression` or `petra.task`, or is a subclass
    of `petra.Task`.
    `budget` is a time ("20 min", seconds) or a mapping with any of time, trials, generations, goal.
    `executor` is a registered name, or makes one of an `Assignment`. `callbacks` are names, as in a
    study file, or objects (`petra.Callback`). The other arguments are as in a study file. If
    `workdir` holds a study of the same model, data and settings, it is continued (a larger budget
    is taken over). The model is not modified.
    What happens is shown on standard error: a bar and a line for every trial on a terminal, the
    same in a box in a notebook, lines elsewhere; with ``progress=False`` nothing. `listener` is
    told of it in any case.

    >>> study = petra.compress(model, petra.classification(train, val, test), budget="10 min")
    >>> study.front.pick("knee").export("model.onnx")

    Raises ConfigError, DataError, ExportError or StoreError with one message that says what to do.
    """
    named, objects = named_and_given(callbacks)
    data: dict[str, Any] = {
        "callbacks": named,
        "target": _target(target),
        "objectives": _listed(objectives),
        "constraints": _listed(constraints),
        "budget": budget,
        "search": search,
        "seed": seed,
        "device": device,
        "executor": "local" if callable(executor) else executor,
        "workdir": str(workdir) if isinstance(workdir, Path) else workdir,
    }
    given = {
        "space": space,
        "limits": limits,
        "savings": savings,
        "prior": prior,
        "virtual_workers": virtual_workers,
    }
    data |= {key: value for key, value in given.items() if value is not None}
    config = parse_config(data, where="petra.compress")
    make = executor if callable(executor) else None
    with showing(progress) as shown:
        study = create_or_continue(config, model, task, note=shown.message)
        study.run(listener, executor=make, callbacks=objects, progress=shown)
        if progress:
            conclude(shown, study.directory)
    return study


def _target(target: object) -> object:
    return asdict(target) if isinstance(target, Target) else target


def _listed(given: object) -> object:
    """Several strings, or one: whatever else it is, the configuration refuses with its path."""
    if isinstance(given, str):
        return (given,)
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, Mapping) else given


def load_study(directory: str | Path) -> Study:
    """A study for reading; and for running too, when its configuration names the model and the
    data.

    Raises StoreError when there is none, or when what is there makes no sense.
    """
    record = StudyRecord.load(_path(directory, "directory"))
    return Study(record.directory, record.config, model=None, task=None)


def resume_study(
    directory: str | Path,
    *,
    budget: Mapping[str, Any] | None = None,
    trust: bool = False,
    note: Note = unsaid,
) -> Study:
    """A study ready to run on, its model and data built anew from its configuration.

    That calls the functions that the study names, so it is done for studies that this user started
    on this machine, and for others only with `trust`: else StoreError says what would be called.
    `note` receives what is worth a line.
    """
    study, model, task, places = _rebuilt(directory, trust=trust, note=note)
    config = study.config
    if budget:
        config = parse_config(config.model_dump() | {"budget": dict(budget)}, where="budget")
    config = config.model_copy(update={"workdir": str(study.directory)})
    return create_or_continue(config, model, task, places=places, note=note)


def live_study(directory: str | Path, *, trust: bool = False) -> Study:
    """A study with its model and data built anew from its configuration, under the condition of
    `resume_study`; nothing of it is changed or locked."""
    study, model, task, _ = _rebuilt(directory, trust=trust)
    return Study(study.directory, study.config, model=model, task=task)


def _rebuilt(
    directory: str | Path, *, trust: bool, note: Note = unsaid
) -> tuple[Study, nn.Module, Task, tuple[str, ...]]:
    """A study, its model and data, and where their modules were looked for."""
    study = load_study(directory)
    if not study.config.has_source:
        raise ConfigError(
            f"{directory}: this study was started from live Python objects",
            hint=(
                "continue it with petra.compress(model, task, workdir=...), or use the Study that"
                " it returns"
            ),
        )
    with Store.open(study.directory, write=False) as store:
        check_trust(store, study.config, trust=trust)
        places = study_places(store)
    note(LOADING)
    find_modules(study.config, places)
    model, task = resolve_source(study.config)
    return study, model, task, places


def study_from_file(
    path: str | Path, *, overrides: Mapping[str, Any] | None = None, note: Note = unsaid
) -> Study:
    """A study ready to run from a YAML file; `overrides` replace keys of it, and of a section those
    that are given.

    Functions that it names are looked for beside the file and in the current directory, after all
    that is installed.
    """
    path = _path(path, "path")
    return study_from_config(load_config(path, overrides), path, note=note)


def study_from_config(
    config: StudyConfig, path: Path | None = None, *, note: Note = unsaid
) -> Study:
    """A study ready to run from what was read in the file `path`: see `study_from_file`. Without a
    file, of a workload.
    """
    if not config.has_source:
        raise ConfigError(
            f"{path or 'study'}: neither workload nor model and task are given",
            hint="for example: workload: digits",
        )
    _check(config)
    here = (path.resolve().parent, Path.cwd()) if path else ()
    places = [str(place) for place in dict.fromkeys(here)]
    note(LOADING)
    find_modules(config, places)
    config = located(config, places)
    model, task = resolve_source(config)
    return _create_or_continue(config, model, task, places, note)


def _check(config: StudyConfig) -> None:
    """Refuse what is wrong whatever model and data are, before anything is spent on them."""
    check_writable(Path(config.workdir))
    check_brought(Path(config.workdir))
    make_callbacks(config.callbacks)
    check_settings(config)
    check_device(config.device)


def _path(value: object, name: str) -> Path:
    """A path that a person gave, as far as its type goes."""
    if not isinstance(value, str | Path) or "\0" in str(value):
        raise ConfigError(f"{name}: got {value!r}", hint="give a path")
    return Path(value)


def create_or_continue(
    config: StudyConfig,
    model: nn.Module | str | Path,
    task: Task,
    *,
    places: Sequence[str] = (),
    note: Note = unsaid,
) -> Study:
    """The study in `config.workdir`, created if there is none; refused if there is a different one.

    Model and data are examined before anything is written. `places` are the directories in which
    the modules that it names were looked for. That this user started it here is recorded, for
    `resume_study`.
    """
    _check(config)
    return _create_or_continue(config, model, task, places, note)


def _create_or_continue(
    config: StudyConfig,
    model: nn.Module | str | Path,
    task: Task,
    places: Sequence[str],
    note: Note,
) -> Study:
    directory = Path(config.workdir)
    given, task = received(model, task, config.target)
    as_model(given), as_task(task)
    check_metrics(config, task)
    note(EXAMINING)
    study = Study(directory, config, model=given, task=task)
    wanted = config.model_dump(mode="json")
    if Store.exists(directory):
        store = Store.open(directory, write=True)
    else:
        # Refuses what is not sound, and what does not fit this model.
        check_directions(config, task)
        problem, knowledge = study.problem, study.knowledge
        notes = recipe_notes(problem.recipes) | replace(knowledge, past=problem.past).notes()
        store = Store.create(directory, wanted, describe_host(), notes=notes)
    with store:
        if store.config != wanted:
            take_over(store, wanted)
        if store.note(IDENTITY_NOTE) is None:
            store.set_note(IDENTITY_NOTE, secrets.token_hex(16))
        note_brought(store, config)
        if places:
            store.set_note(PLACES_NOTE, list(places))
        if failed := remember_start(store, config):
            note(f"that you started this study could not be recorded ({failed}); resuming will ask")
    return study
