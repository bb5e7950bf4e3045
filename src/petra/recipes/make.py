"""From recipes to pipelines: legal in a study's space, within its ranges, refused by no stage that
can tell beforehand.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from petra.core.errors import ConfigError
from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.core.rng import derive_seed
from petra.core.target import Target
from petra.execute.remembered import forget_what_is_made_again
from petra.methods.base import Context, Stage
from petra.methods.table import STAGES
from petra.model.attention.separate import unfuse
from petra.model.copies.copying import copy_model
from petra.model.flops import macs_by_module
from petra.model.outline import outline_of
from petra.model.trainability import unfreeze
from petra.recipes.portfolio import RECIPES
from petra.recipes.recipe import UNKNOWN_ITEMS, Blocks, Circumstances, Effort, OneOf, Step
from petra.runtimes.table import runtime_for
from petra.space.domains import Integer, Real
from petra.space.space import Space
from petra.tasks.base import Task
from petra.tasks.inputs import call

MOST_PARAMETERS = 3 * 10**7
"""Of models on which stages are rehearsed: on larger ones that takes minutes, and their refusals
are left to the search.
"""


def make_recipes(
    space: Space,
    model: nn.Module,
    task: Task,
    target: Target,
    *,
    without: Collection[Pipeline] = (),
) -> tuple[Pipeline, ...]:
    """The recipes that suit the untouched `model`, cheapest first, as distinct pipelines of
    `space`; none of `without`.

    Every stage is rehearsed on a copy of the model, in turn: what refuses gives way to the step's
    next alternative, or the recipe is left out. Costs seconds: a few cuts, some forward passes.
    """
    with _quietly():
        kitchen = _Kitchen(space, model, task, target)
        found = (kitchen.made(recipe.steps) for recipe in RECIPES if recipe.suits(kitchen.traits))
        return tuple(p for p in dict.fromkeys(found) if p.stages and p not in without)


def those_that_act(
    space: Space, model: nn.Module, task: Task, target: Target, pipelines: Sequence[Pipeline]
) -> tuple[Pipeline, ...]:
    """Those of `pipelines`, which did well for another model, that are legal in `space` and that
    no stage refuses beforehand.
    """
    with _quietly():
        kitchen = _Kitchen(space, model, task, target)
        return tuple(p for p in map(kitchen.tried, pipelines) if p.stages)


@contextmanager
def _quietly() -> Iterator[None]:
    """No library's warnings, and no random number of the caller's used up."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


def circumstances(model: nn.Module, task: Task, target: Target) -> Circumstances:
    """What recipes are chosen by. Costs a forward pass of two items."""
    macs = macs_by_module(model, lambda m: call(m, task.example(2))).get("", 0)
    kernels = runtime_for(target).kernels
    return Circumstances(
        outline_of(model),
        macs // 2,
        items=task.train.known_items() or UNKNOWN_ITEMS,
        judged_by_error=task.judged_by_error,
        dynamic=kernels.dynamic,
        integer=kernels.recurrent,
    )


class _Kitchen:
    """Models as they are after the pipelines tried so far; None after one that was refused."""

    def __init__(self, space: Space, model: nn.Module, task: Task, target: Target) -> None:
        self.space, self.task, self.target = space, task, target
        self.teacher = copy_model(model).cpu().eval()
        self.here = circumstances(self.teacher, task, target)
        self.traits = self.here.traits
        self._large = self.here.outline.modules[0].parameters > MOST_PARAMETERS
        first = copy_model(self.teacher)
        unfuse(first)
        unfreeze(first)
        forget_what_is_made_again(first, task.example(2))
        self._after: dict[Pipeline, nn.Module | None] = {Pipeline(): first}

    def made(self, steps: Sequence[OneOf]) -> Pipeline:
        """The pipeline of the first alternatives that act together; empty where none do."""
        found = next(self._from(Pipeline(), steps), Pipeline())
        self._forget()
        return found

    def tried(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline as this space has it, without what is about layers of another model; empty
        where it is not legal, or refused.
        """
        try:
            legal = self.space.normalize(Pipeline(tuple(map(self._known, pipeline))))
        except ConfigError:
            return Pipeline()
        acts = all(self._acts(legal.prefix(i), spec) for i, spec in enumerate(legal))
        self._forget()
        return legal if acts else Pipeline()

    def _known(self, spec: StageSpec) -> StageSpec:
        card = self.space.cards.get(spec.kind)
        if card is None:
            return spec
        return StageSpec(spec.kind, {k: v for k, v in spec.params.items() if card.parameter(k)})

    def _forget(self) -> None:
        """Models are as large as they are: only verdicts are kept."""
        self._after = {p: m for p, m in self._after.items() if m is None or not p.stages}

    def _from(self, done: Pipeline, steps: Sequence[OneOf]) -> Iterator[Pipeline]:
        """Whole pipelines that begin with `done`, best first."""
        if not steps:
            yield done
            return
        for step in steps[0]:
            longer = done if step is None else self._longer(done, step)
            if longer is not None:
                yield from self._from(longer, steps[1:])

    def _longer(self, done: Pipeline, step: Step) -> Pipeline | None:
        """`done` and the step; None where that is not legal, not for this model, or refused."""
        if step.stage not in self.space.cards or not step.suits(self.traits):
            return None
        spec = self.space.cards[step.stage].normalize(dict(self._params(step)))
        longer = Pipeline((*done.stages, spec))
        if not self.space.is_legal(longer):
            return None
        return longer if self._acts(done, spec) else None

    def _acts(self, done: Pipeline, spec: StageSpec) -> bool:
        """Whether the stage does something to the model as it is after `done`."""
        longer = Pipeline((*done.stages, spec))
        if longer not in self._after:
            self._after[longer] = self._rehearsed(done, spec)
        return self._after[longer] is not None

    def _params(self, step: Step) -> Iterator[tuple[str, Value]]:
        """The step's values, those out of a range that the user or the runtime narrowed moved to
        its ends, or left at their defaults where it has none.
        """
        declared = STAGES.get(step.stage).card(self.here.outline)
        for name, wanted in step.params.items():
            value = wanted.of(self.here) if isinstance(wanted, Effort | Blocks) else wanted
            parameter = self.space.cards[step.stage].parameter(name)
            original = declared.parameter(name)
            if parameter is None:
                continue
            narrowed = original is None or original.domain != parameter.domain
            allowed = parameter.domain if narrowed else parameter.limits
            if isinstance(allowed, Integer | Real) and not isinstance(value, str):
                yield name, min(max(value, allowed.low), allowed.high)
            elif allowed.contains(value):
                yield name, value

    def _rehearsed(self, done: Pipeline, spec: StageSpec) -> nn.Module | None:
        before = self._after[done]
        assert before is not None
        stage = STAGES.get(spec.kind).from_spec(spec, self.task, self.here.outline)
        if type(stage).rehearse is Stage.rehearse or self._large:
            return before
        seed = derive_seed(0, "recipe", done.key, spec.canonical())
        context = Context(task=self.task, teacher=self.teacher, seed=seed, target=self.target)
        torch.manual_seed(seed % 2**63)
        try:
            return stage.rehearse(copy_model(before).eval(), context)
        except Exception:  # noqa: BLE001 - refused, or at fault: a recipe is only a suggestion
            return None
