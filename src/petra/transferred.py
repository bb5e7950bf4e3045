"""What one study found, tried on another task: its configurations evaluated there, or a search
there that begins with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from petra.api import LOADING, create_or_continue, unsaid
from petra.config import StudyConfig, load_config, parse_config
from petra.core.errors import ConfigError
from petra.core.pipeline import Pipeline
from petra.core.text import shown
from petra.core.trial import GIVEN, Trial
from petra.execute.base import MakeExecutor
from petra.intake import as_model, as_task
from petra.listener import Listener
from petra.problem import build_space, check_settings, initial_pipelines
from petra.progress.show import showing
from petra.report.record import StudyRecord
from petra.sources import find_modules, resolve_source
from petra.space.space import Space
from petra.study import Study
from petra.tasks.base import Task

Elsewhere = str | Path | StudyConfig | tuple[nn.Module, Task]
_SOURCES = ("workload", "model", "task")


@dataclass(frozen=True)
class Applied:
    """A configuration: its trial in the study that found it, and in the other; None where that has
    not been tried there.
    """

    found: Trial
    applied: Trial | None


@dataclass(frozen=True)
class Transfer:
    """What came of it: `there` is the study that found the configurations, `here` the one that
    tried them. `refused` are those that are not legal for the model here, by number, and why.
    """

    there: StudyRecord
    here: StudyRecord
    applied: tuple[Applied, ...]
    refused: Mapping[int, str]

    @property
    def given(self) -> tuple[Trial, ...]:
        """What the other study file's own `space.initial` came to here: baselines, say."""
        mine = {a.applied.number for a in self.applied if a.applied}
        return tuple(t for t in self.here.trials if t.origin == GIVEN and t.number not in mine)


@dataclass(frozen=True)
class Ready:
    """A transfer that `study`, once it is run, carries out: `found` are the pipelines that it tries
    first, by the number of the trial `there` that they are from.
    """

    there: StudyRecord
    study: Study
    found: Mapping[int, Pipeline]
    refused: Mapping[int, str]

    def result(self) -> Transfer:
        """What came of it so far."""
        here = StudyRecord.load(self.study.directory)
        tried = {t.pipeline: t for t in reversed(here.trials) if t.fidelity.full}
        applied = tuple(
            Applied(trial, tried.get(self.found[trial.number]))
            for trial in self.there.trials
            if trial.number in self.found
        )
        return Transfer(self.there, here, applied, self.refused)


@dataclass(frozen=True)
class _Place:
    """Where configurations are tried: model and task, the settings of the study, and where the
    modules that these name are looked for.
    """

    config: StudyConfig
    model: nn.Module
    task: Task
    modules: tuple[str, ...] = ()


def transfer(
    study: str | Path | Study,
    to: Elsewhere,
    *,
    pick: str | int | None = None,
    start: bool = False,
    workdir: str | Path | None = None,
    listener: Listener | None = None,
    executor: MakeExecutor | None = None,
    progress: bool = True,
) -> Transfer:
    """Try the configurations on the front of `study`, all or the one that `pick` names, elsewhere.

    `to` is a study file, its configuration, or a model and its task, which are then judged as in
    `study`. They are evaluated beside what the file has under ``space.initial``, and no more; with
    `start`, the file's own search begins with them, and learns from the trials of `study` too. The
    results are a study in `workdir`, by default beside that of `to`; the same call continues it.
    `progress` is as in `petra.compress`.

    Raises ConfigError, saying why, when none of them (or the one picked) is legal for the model,
    task and space there. Costs an evaluation for each of them, or that of the search.
    """
    with showing(progress) as told:
        ready = prepare(study, to, pick=pick, start=start, workdir=workdir, note=told.message)
        ready.study.run(listener, executor=executor, progress=told)
    return ready.result()


def prepare(
    study: str | Path | Study,
    to: Elsewhere,
    *,
    pick: str | int | None = None,
    start: bool = False,
    workdir: str | Path | None = None,
    note: Callable[[str], None] = unsaid,
) -> Ready:
    """What `transfer` runs, created or as far as it came; `note` is told what is being done."""
    directory = study.directory if isinstance(study, Study) else Path(study)
    there = StudyRecord.load(directory)
    note(LOADING)
    place, chosen = _place(to, there), _chosen(there, pick)
    space = _space(place, [trial.pipeline for trial in chosen])
    found, refused = _legal(space, chosen, strict=pick is not None)
    first = dict.fromkeys((*initial_pipelines(place.config, space), *found.values()))
    config = _settings(place.config, directory, first, start=start, workdir=workdir)
    made = create_or_continue(config, place.model, place.task, places=place.modules, note=note)
    return Ready(there, made, found, refused)


def _chosen(record: StudyRecord, pick: str | int | None) -> list[Trial]:
    """Members of the front that are not the untouched model, one of them where it is picked."""
    front = record.front()
    chosen = front.members if pick is None else [front.choose(pick)]
    found = [t for t in chosen if t.number]
    if not found:
        what = "what is picked is the untouched model" if pick is not None else "nothing was found"
        raise ConfigError(
            f"{record.directory}: {what}: there is nothing to be applied elsewhere",
            hint="pick another, or give that study more time:"
            f" petra resume {record.directory} --time '+10 min'",
        )
    return found


def _place(to: Elsewhere, there: StudyRecord) -> _Place:
    if isinstance(to, tuple):
        model, task = _pair(to)
        settings = there.config.model_dump(exclude={*_SOURCES, "callbacks"})
        return _Place(parse_config(settings, where="petra.transfer"), model, task)
    path = None if isinstance(to, StudyConfig) else Path(to)
    config = to if isinstance(to, StudyConfig) else load_config(Path(to))
    if not config.has_source:
        raise ConfigError(
            f"{path or 'to'}: neither workload nor model and task are given",
            hint="for example: workload: glue/mrpc",
        )
    check_settings(config)
    here = (path.resolve().parent, Path.cwd()) if path else ()
    modules = tuple(str(p) for p in dict.fromkeys(here))
    find_modules(config, modules)
    return _Place(config, *resolve_source(config), modules)


def _pair(to: tuple[Any, ...]) -> tuple[nn.Module, Task]:
    if len(to) != 2:
        raise ConfigError(
            f"to: got a tuple of {len(to)}", hint="give (model, task), or a study file"
        )
    return as_model(to[0]), as_task(to[1])


def _space(place: _Place, asked: Sequence[Pipeline]) -> Space:
    """The legal pipelines there, where somebody asks for these."""
    first = (*place.config.space.initial, *(tuple(p.as_list()) for p in asked))
    wanted = place.config.space.model_copy(update={"initial": first})
    config = place.config.model_copy(update={"space": wanted})
    study = Study(Path(config.workdir), config, model=place.model, task=place.task)
    examined = study.examined
    return build_space(config, examined.task, examined.model, without=study.left_out)


def _legal(
    space: Space, trials: Sequence[Trial], *, strict: bool
) -> tuple[dict[int, Pipeline], dict[int, str]]:
    """Pipelines of trials as they are in the other space, by number, and why others are not legal.
    Raises ConfigError when none is, or one of them where that is `strict`.
    """
    legal: dict[int, Pipeline] = {}
    refused: dict[int, str] = {}
    for trial in trials:
        try:
            legal[trial.number] = space.normalize(trial.pipeline, where=f"trial {trial.number}")
        except ConfigError as error:
            refused[trial.number] = (
                f"{error.message} ({error.hint})" if error.hint else error.message
            )
    if refused and (strict or not legal):
        number, why = next(iter(refused.items()))
        more = f", nor any of {len(refused) - 1} others" if len(refused) > 1 else ""
        raise ConfigError(
            f"trial {number}{more} is not legal for the other model: {why}",
            hint="choose a study of a model with the same blocks, or a space that has these stages",
        )
    return legal, refused


def _settings(
    config: StudyConfig,
    source: Path,
    first: Iterable[Pipeline],
    *,
    start: bool,
    workdir: str | Path | None,
) -> StudyConfig:
    """The configuration of the study that tries the pipelines `first`."""
    known = config.model_dump()
    initial = [pipeline.as_list() for pipeline in first]
    place = workdir or f"{config.workdir}-from-{source.resolve().name}"
    changes: dict[str, Any] = {"workdir": str(place)}
    if start:
        studies = (*config.prior.studies, str(source.resolve()))
        changes["prior"] = known["prior"] | {"studies": tuple(dict.fromkeys(studies))}
        changes["space"] = known["space"] | {"initial": initial}
    else:
        changes["prior"] = {"shipped": False}
        changes["space"] = known["space"] | {"initial": initial, "recipes": False}
        confirm = config.budget.confirm
        changes["budget"] = {"trials": len(initial), "stagnation": 0, "confirm": confirm}
    return parse_config(known | changes, where=f"transfer from {shown(str(source))}")
