"""From a configuration to what a searcher is given: legal pipelines, those to begin with, and its
options.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from petra.config import StudyConfig
from petra.core.errors import ConfigError, did_you_mean
from petra.core.pipeline import Pipeline
from petra.core.text import printable, shown
from petra.methods.facts import facts_of
from petra.methods.table import STAGES
from petra.model.copies.copying import copy_model
from petra.model.outline import outline_of
from petra.runtimes.table import RUNTIMES
from petra.search.options import read_options
from petra.search.table import SEARCHERS
from petra.space.effects import INITIAL_FACTS
from petra.space.narrow import fix_for_runtime, fix_for_task, lacks_kernels, narrow
from petra.space.outline import ModelOutline
from petra.space.space import Space, StageCard
from petra.tasks.base import Task


def build_space(
    config: StudyConfig,
    task: Task,
    model: nn.Module | None = None,
    *,
    without: Collection[str] = (),
) -> Space:
    """The legal pipelines of a study: the user's stages and ranges, or all stages but those in
    `without` and those of no use on the target's runtime; the task's losses.

    `model` is the untouched model, on which declarations and facts depend. Without it, only what
    holds for any model is checked.
    """
    check_settings(config)
    outline = None if model is None else outline_of(model)
    facts = INITIAL_FACTS if model is None else facts_of(model)
    useless = _useless(config)
    every: Mapping[str, Mapping[str, Any]] = {
        name: {} for name in STAGES.names() if name not in without and name not in useless
    }
    chosen = every if config.space.stages is None else config.space.stages
    cards = {}
    for name, ranges in chosen.items():
        where = f"space.stages.{name}"
        card = _card(name, config, outline)
        card = fix_for_task(card, losses=task.losses(), ignores=task.ignored())
        cards[name] = narrow(card, ranges, where=where)
    space = Space(cards, max_length=config.space.max_length, facts=facts)
    _require_a_beginning(space)
    return space


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


def check_target(config: StudyConfig) -> None:
    """Raise ConfigError, with the path, unless the target's runtime exists."""
    if config.target.runtime not in RUNTIMES:
        hint = did_you_mean(config.target.runtime, RUNTIMES)
        raise ConfigError(
            f"target.runtime: unknown runtime {shown(config.target.runtime)}", hint=hint
        )


def check_settings(config: StudyConfig) -> None:
    """Raise ConfigError, with the path, for whatever of target, search and space is wrong whatever
    the task: before a model is built."""
    check_target(config)
    check_searcher(config)
    for name, ranges in (config.space.stages or {}).items():
        where = f"space.stages.{printable(name)[:80]}"
        try:
            card = _card(name, config)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
        narrow(card, ranges, where=where)
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
    runtime = RUNTIMES.get(config.target.runtime)
    return fix_for_runtime(
        STAGES.get(name).card(model), runtime=runtime.name, precisions=runtime.precisions
    )


def _asked(config: StudyConfig) -> set[str]:
    """Kinds of stages that the user names in an initial pipeline."""
    return {
        stage.kind for given in config.space.initial for stage in Pipeline.from_list(list(given))
    }


def _useless(config: StudyConfig) -> dict[str, str]:
    """Stages that the target's runtime has no kernels for, and which it lacks; of those only that
    nobody asked for.
    """
    check_target(config)
    runtime, asked = RUNTIMES.get(config.target.runtime), _asked(config)
    reasons = {
        name: lacks_kernels(
            STAGES.get(name).card(), runtime=runtime.name, precisions=runtime.precisions
        )
        for name in STAGES.names()
        if name not in asked
    }
    return {name: reason for name, reason in reasons.items() if reason}


def objections(config: StudyConfig, model: nn.Module, task: Task) -> Mapping[str, str]:
    """Stages that object to the untouched `model` or are of no use on the target's runtime, and
    why; of those only that nobody asked for.

    Those named under ``space.stages`` or in an initial pipeline were asked for. Costs a few forward
    passes.
    """
    if config.space.stages is not None:
        return {}
    asked, useless = _asked(config), _useless(config)
    model = copy_model(model).cpu().eval()
    reasons = {
        name: useless.get(name) or STAGES.get(name).objection(model, task)
        for name in STAGES.names()
        if name not in asked
    }
    return {name: reason for name, reason in reasons.items() if reason}


def initial_pipelines(config: StudyConfig, space: Space) -> tuple[Pipeline, ...]:
    """The pipelines the user wants tried first, checked and without repetitions."""
    given = [
        space.normalize(Pipeline.from_list(list(stages)), where=f"space.initial[{i}]")
        for i, stages in enumerate(config.space.initial)
    ]
    return tuple(dict.fromkeys(p for p in given if p.stages))


def search_options(config: StudyConfig) -> tuple[str, dict[str, object]]:
    """The searcher's name and its options, not yet checked."""
    options = dict(config.search)
    return str(options.pop("name", "evolution")), options


def check_searcher(config: StudyConfig) -> None:
    """Raise ConfigError, with the path, unless the searcher exists and takes its options."""
    name, options = search_options(config)
    read_options(SEARCHERS.get(name).Options, options, where="search")
