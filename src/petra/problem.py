"""From a configuration to what a searcher is given: legal pipelines, those to begin with, and its
options.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from petra.config import StudyConfig
from petra.core.errors import ConfigError, StoreError, did_you_mean
from petra.core.metric import METRICS, QUALITY, Catalogue, resolve_metric
from petra.core.pipeline import Pipeline
from petra.core.text import printable, shown
from petra.execute.table import EXECUTORS
from petra.methods.facts import beyond_file, facts_of
from petra.methods.presets import preset_of
from petra.methods.table import STAGES
from petra.model.copies.copying import copy_model
from petra.model.outline import outline_of
from petra.runtimes.base import Runtime
from petra.runtimes.table import runtime_for
from petra.search.options import read_options
from petra.search.table import SEARCHERS
from petra.space.effects import INITIAL_FACTS
from petra.space.narrow import fix_for_runtime, lacks_kernels, narrow, narrow_as_far
from petra.space.outline import ModelOutline
from petra.space.space import Space, StageCard
from petra.store import checked
from petra.store.store import Store
from petra.tasks.base import Task


def build_space(
    config: StudyConfig,
    task: Task,
    model: nn.Module | None = None,
    *,
    without: Collection[str] = (),
) -> Space:
    """The legal pipelines of a study: the user's stages and ranges, or those that the preset has
    alone, or all stages but those in `without`, those of no use on the target's runtime and those
    that the preset leaves out; the preset's ranges where the user gives none; the task's losses.

    `model` is the untouched model, on which declarations and facts depend. Without it, only what
    holds for any model is checked.
    """
    check_settings(config)
    outline = None if model is None else outline_of(model)
    facts = INITIAL_FACTS if model is None else facts_of(model)
    preset, useless = preset_of(config.space.preset), _useless(config)
    every: Mapping[str, Mapping[str, Any]] = {
        name: {} for name in _offered(config) if name not in without and name not in useless
    }
    named = _named(config)
    chosen = every if named is None else named
    if model is not None:
        _refuse_beyond_file({*(named or {}), *_asked(config)}, model)
    cards = {}
    for name, ranges in chosen.items():
        card = STAGES.get(name).fitted(_card(name, config, outline), task)
        gentle = preset.ranges.get(name, {})
        card = narrow_as_far(card, gentle, where=f"space.preset: {name}")
        cards[name] = narrow(card, ranges, where=f"space.stages.{name}")
    space = Space(cards, max_length=config.space.max_length, facts=facts)
    _require_a_beginning(space)
    return space


def _refuse_beyond_file(asked: Collection[str], model: nn.Module) -> None:
    """Raise ConfigError where a stage that somebody asked for cannot treat an ONNX file."""
    for name in sorted(asked):
        if reason := beyond_file(name, model):
            able = [n for n in STAGES.names() if not beyond_file(n, model)]
            raise ConfigError(
                f"space: {name}: {reason}",
                hint=f"allowed: {', '.join(able)}; for others give the PyTorch model",
            )


def _named(config: StudyConfig) -> Mapping[str, Mapping[str, Any]] | None:
    """Ranges of the stages that the user names, else of those that the preset has alone and what
    the user asks for besides; None for all stages.
    """
    only = preset_of(config.space.preset).only
    if config.space.stages is not None or not only:
        return config.space.stages
    return {name: {} for name in dict.fromkeys((*only, *sorted(_asked(config))))}


def _require_a_beginning(space: Space) -> None:
    """Raise ConfigError unless some stage can be the first of a pipeline."""
    reasons = {name: card.effects.objection(space.facts) for name, card in space.cards.items()}
    if not reasons or not all(reasons.values()):
        return
    few = "; ".join(f"{name} {reason}" for name, reason in sorted(reasons.items())[:5])
    raise ConfigError(
        "no stage of the space can treat this model as it is",
        hint=f"{few}; give a float model, or other stages",
    )


def _runtime(config: StudyConfig) -> Runtime:
    """The target's runtime. Raises ConfigError, with the path, for a target that there is not."""
    try:
        return runtime_for(config.target)
    except ConfigError as error:
        raise ConfigError(f"target.{error.message}", hint=error.hint) from None


def check_metrics(config: StudyConfig, task: Task) -> None:
    """Raise ConfigError, with the path, unless the task measures what objectives, constraints and
    goal name and petra does not.
    """
    quality, *measured = task.metrics()
    others = [metric.name for metric in measured]
    for name, where in config.metrics_named().items():
        if name == quality.name and name not in METRICS:
            raise ConfigError(
                f"{where}: {name} is the quality of this task", hint=f"call it {QUALITY!r} here"
            )
        resolve_metric(name, where=where, own=others, quality=quality.title)


def check_directions(config: StudyConfig, task: Task) -> None:
    """Raise ConfigError for a constraint or a goal that asks an error of the task's to be large:
    written as one is used to of an accuracy, it would hold for every model that is bad enough.
    """
    known = Catalogue(task.metrics())
    bounds = (("constraints", config.parsed_constraints()), ("budget.goal", config.parsed_goal()))
    for where, constraint in ((where, c) for where, found in bounds for c in found):
        metric = known[constraint.metric]
        if metric.sampled and metric.maximize is False and constraint.at_least:
            raise ConfigError(
                f"{where}: '{constraint}' asks for much of {metric.title}, of which less is better",
                hint=f"for example: {constraint.metric} <= 1.02 * baseline",
            )


def check_settings(config: StudyConfig) -> None:
    """Raise ConfigError, with the path, for whatever of target, search and space is wrong whatever
    the task: before a model is built."""
    _runtime(config)
    check_searcher(config)
    check_executor(config)
    preset_of(config.space.preset)
    for name, ranges in (config.space.stages or {}).items():
        where = f"space.stages.{printable(name)[:80]}"
        try:
            card = _card(name, config)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
        # What a slot is filled with, only the task knows.
        declared = {k: v for k, v in ranges.items() if not card.slots or card.parameter(str(k))}
        narrow(card, declared, where=where)
    for i, stages in enumerate(config.space.initial):
        where = f"space.initial[{i}]"
        try:
            kinds = [stage.kind for stage in Pipeline.from_list(list(stages))]
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
        for j, kind in enumerate(kinds):
            if kind not in STAGES:
                hint = did_you_mean(kind, STAGES)
                raise ConfigError(f"{where}[{j}].stage: unknown stage {shown(kind)}", hint=hint)
            try:
                _card(kind, config)
            except ConfigError as error:
                raise ConfigError(f"{where}[{j}].stage: {error.message}", hint=error.hint) from None


def _card(name: str, config: StudyConfig, model: ModelOutline | None = None) -> StageCard:
    """The declaration of a stage for the study's target, and for the untouched model where that is
    known. Raises ConfigError when there is no such stage, or none for this runtime.
    """
    runtime = _runtime(config)
    return fix_for_runtime(STAGES.get(name).card(model), runtime.target.name, runtime.kernels)


def _asked(config: StudyConfig) -> set[str]:
    """Kinds of stages that the user names in an initial pipeline."""
    return {
        stage.kind for given in config.space.initial for stage in Pipeline.from_list(list(given))
    }


def _offered(config: StudyConfig) -> list[str]:
    """The stages of a search over all: without those that have to be named, and are not, as all
    have to that an installed package brings.
    """
    named = _asked(config) | preset_of(config.space.preset).ranges.keys()
    return [
        name
        for name in STAGES.names()
        if name in named or not (STAGES.package(name) or STAGES.get(name).on_request)
    ]


def _useless(config: StudyConfig) -> dict[str, str]:
    """Stages that the target's runtime has no kernels for, and which it lacks, and those that the
    preset leaves out; of those only that nobody asked for.
    """
    runtime, asked, preset = _runtime(config), _asked(config), preset_of(config.space.preset)
    reasons = {
        name: lacks_kernels(STAGES.get(name).card(), runtime.target.name, runtime.kernels)
        or preset.without.get(name, "")
        for name in STAGES.names()
        if name not in asked
    }
    return {name: reason for name, reason in reasons.items() if reason}


def objections(config: StudyConfig, model: nn.Module, task: Task) -> Mapping[str, str]:
    """Stages that object to the untouched `model` or are of no use on the target's runtime, and
    why; of those only that nobody asked for.

    Those named under ``space.stages``, by a preset or in an initial pipeline were asked for. Costs
    a few forward passes.
    """
    if _named(config) is not None:
        return {}
    asked, useless = _asked(config), _useless(config)
    model = copy_model(model).cpu().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that are asked
        reasons = {
            name: useless.get(name)
            or beyond_file(name, model)
            or STAGES.get(name).objection(model, task)
            for name in _offered(config)
            if name not in asked
        }
    return {name: reason for name, reason in reasons.items() if reason}


LEFT_OUT = "left_out"  # the note with what `objections` found, for a look at the study


def left_out_of(store: Store) -> Mapping[str, str] | None:
    """What a study was run without, and why; None where it has not been run, or by an earlier
    petra. Raises StoreError for what petra did not write.
    """
    noted = store.note(LEFT_OUT)
    if noted is None:
        return None
    try:
        found = checked.mapping(noted, LEFT_OUT)
        return {name: checked.text(why, LEFT_OUT) for name, why in found.items()}
    except ValueError as error:
        raise StoreError(f"{store.directory} is damaged: note {error}") from None


def initial_pipelines(config: StudyConfig, space: Space) -> tuple[Pipeline, ...]:
    """The pipelines the user wants tried first, checked and without repetitions."""
    given = [
        space.normalize(Pipeline.from_list(list(stages)), where=f"space.initial[{i}]")
        for i, stages in enumerate(config.space.initial)
    ]
    return tuple(dict.fromkeys(p for p in given if p.stages))


def search_options(config: StudyConfig) -> tuple[str, dict[str, object]]:
    """The searcher's name and its options, not yet checked. Options without a name are evolution's:
    it was the only searcher with options when study files could first leave the name out.
    """
    options = dict(config.search)
    return str(options.pop("name", "evolution")), options


def check_executor(config: StudyConfig) -> None:
    """Raise ConfigError, with the path, unless the executor exists, and PluginError where that of
    a package cannot be used.
    """
    if config.executor not in EXECUTORS:
        raise ConfigError(
            f"executor: unknown executor {shown(config.executor)}",
            hint=did_you_mean(config.executor, EXECUTORS),
        )
    EXECUTORS.get(config.executor)


def check_searcher(config: StudyConfig) -> None:
    """Raise ConfigError, with the path, unless the searcher exists and takes its options, and
    MissingExtra where a library that it needs is not installed.
    """
    name, options = search_options(config)
    searcher = SEARCHERS.get(name)
    searcher.check_installed()
    read_options(searcher.Options, options, where="search")
