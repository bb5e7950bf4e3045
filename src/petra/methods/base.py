"""The stage contract, and how a method declares its parameters.

A method is one file: a pure tensor function with the paper's symbols, and a frozen dataclass that
is the stage:

    @dataclass(frozen=True)
    class Halve(Stage):
        '''Card: the idea, the paper, when it helps, when it does not, what it costs.'''

        name: ClassVar[str] = "halve"
        effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS])
        ratio: float = parameter(0.5, Real(0.1, 0.9), "share of channels removed")

        def apply(self, model, context): ...

What the search may choose can depend on the untouched model: a domain may be made from its outline
(`FromModel`), and `parameters` declares one for each of some of its modules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from petra.core.errors import StageRefused
from petra.core.interface import Interface
from petra.core.kernels import Kernels
from petra.core.pipeline import StageSpec, Value
from petra.core.rng import derive_seed
from petra.core.target import Target
from petra.core.trial import StageTrace
from petra.model.copies.copying import copy_model
from petra.runtimes.table import runtime_for
from petra.space.declare import FromModel as FromModel  # part of the contract of a stage
from petra.space.declare import fields_of, parameters_of, slots_of
from petra.space.declare import parameter as parameter
from petra.space.declare import parameters as parameters
from petra.space.effects import Effects
from petra.space.narrow import fix_for_task
from petra.space.outline import ModelOutline
from petra.space.space import StageCard
from petra.training.effort import Effort

if TYPE_CHECKING:
    from torch import nn

    from petra.tasks.base import Task


@dataclass(frozen=True)
class Context:
    """What a stage may use besides the model.

    `teacher` is the untouched model (never modify it). `seed` is derived from study seed and
    pipeline prefix; draw further seeds with `seed_for(purpose)`. `progress(done, total, note)`
    reports steps; `device` is torch's name of where stages train, `target` says where the result
    will run, and `kernels` what it can run in there. `interface` is what the model takes and
    returns, None for items of one shape. `effort`, to be handed to the training loop, is how far
    this stage trains. `keep` is to be given the model with all that was put beside its layers,
    before any of it becomes part of the weights: files of modules are made of it.
    """

    task: Task
    teacher: nn.Module
    seed: int
    device: str = "cpu"
    target: Target = field(default_factory=Target)
    progress: Callable[[int, int, str], None] = lambda done, total, note: None
    interface: Interface | None = None
    effort: Effort = field(default_factory=Effort)
    keep: Callable[[nn.Module], None] = lambda model: None

    @property
    def kernels(self) -> Kernels:
        return runtime_for(self.target).kernels

    def seed_for(self, *purpose: str | int) -> int:
        return derive_seed(self.seed, *purpose)


def refusal(stage: Stage, model: nn.Module, task: Task) -> str:
    """Why `stage` cannot treat `model`, which stays as it is; '' where it can, as far as a
    rehearsal on a copy tells.
    """
    try:
        stage.rehearse(copy_model(model), Context(task=task, teacher=model, seed=0))
    except StageRefused as refused:
        return refused.message
    return ""


@dataclass(frozen=True)
class Stage(ABC):
    """A training or compression operation on a model. Instances hold the parameters; `apply` does
    the work.

    A field made by `petra.space.declare.slots` has room for parameters that the task brings, those
    of its losses for example. A stage that trains calls its passes over the training split
    `epochs`; `epoch_cost` is what one takes, in those of `tune`: schedules reckon with both.
    """

    name: ClassVar[str]
    effects: ClassVar[Effects]
    clashes: ClassVar[tuple[Mapping[str, tuple[Value, ...]], ...]] = ()
    """Settings that no model is treated with, values by parameter: see `StageCard`."""
    epoch_cost: ClassVar[float] = 1.0
    on_request: ClassVar[bool] = False
    """Whether a search over all stages leaves it out, because its parameters are a space of their
    own: somebody has to name it, or a preset with ranges for it.
    """

    @abstractmethod
    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        """Act on `model` (which it owns and may modify in place) and say what was done.

        Raises StageRefused, naming the layer where there is one, when it cannot act: it never
        returns the model unchanged as if it had worked. The trace's sizes and seconds are filled in
        by the caller.
        """

    def training_epochs(self) -> int:
        """Passes over the training split that it trains for, over all its trainings. Override it,
        and `untrained`, in a stage that trains.
        """
        return 0

    def untrained(self) -> Stage | None:
        """The same without training: what is left when costs are asked for before weights matter.
        None where nothing is left; a stage that does not train is its own.

        Its model has the structure of the trained one, as far as that does not depend on trained
        weights (ranks by a share of the spectrum do): its parameters and MACs, and to a
        thousandth its size. It may hold values that no person may write.
        """
        return self

    @property
    def structure_from_weights(self) -> bool:
        """Whether what it leaves behind (widths, ranks, what stays in float) depends on the values
        of weights, or on what data make of them. What costs a candidate has that trained before
        such a stage is not known until it has: nothing is screened for a guess at it. True unless a
        stage knows better.
        """
        return True

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        """Why no setting of this stage can treat the untouched `model`, read off its structure; ""
        where one may.

        A search over all stages leaves those out that object. The model is in eval mode on the CPU;
        it may be run, and ends as it began. Costs a few forward passes at most.
        """
        return ""

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        """`model`, which it owns, with the layers and widths that `apply` would give it, whatever
        its weights: what tells a stage that follows whether it can act.

        Raises StageRefused where `apply` would. Recipes are rehearsed on the untouched model before
        a search, so it costs seconds at most; by default nothing, and promises nothing.
        """
        return model

    @classmethod
    def ignored(cls, task: Task) -> frozenset[str]:
        """Names of parameters that can do nothing on this task's data: nobody may set them."""
        return frozenset()

    @classmethod
    def preferred(cls, task: Task) -> Mapping[str, Value]:
        """Values that parameters have by default on this task, where these are others than usual:
        what the search draws half of the time, and what a pipeline that does not say has.
        """
        return {}

    @classmethod
    def modules(cls) -> tuple[type[nn.Module], ...]:
        """Classes of modules that this stage leaves in models, other than torch's own.

        A model that holds one is taken as treated by the stage. Models with classes of a third
        party are cached where its stage declares them: the cache makes them anew without a
        constructor, from attributes that are plain values, and only in a process where a stage of
        the same name brings a class of the same name.
        """
        return ()

    @classmethod
    def card(cls, model: ModelOutline | None = None) -> StageCard:
        """The declaration that the search, the CLI and the docs read, for any task, and for the
        untouched `model`; without one, what holds for any.
        """
        summary = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
        room = tuple(slot for slots in slots_of(cls).values() for slot in slots)
        declared = parameters_of(cls, model)
        return StageCard(
            cls.name, declared, cls.effects, summary, room, cls.clashes, cls.epoch_cost
        )

    @classmethod
    def fitted(cls, card: StageCard, task: Task) -> StageCard:
        """A declaration of this stage with what the task brings and prefers, and without what means
        nothing to it.
        """
        return fix_for_task(
            card, task.brought(), ignores=cls.ignored(task), preferred=cls.preferred(task)
        )

    @classmethod
    def card_for(cls, task: Task, model: ModelOutline | None = None) -> StageCard:
        """The declaration for a task."""
        return cls.fitted(cls.card(model), task)

    @classmethod
    def from_spec(
        cls, spec: StageSpec, task: Task | None = None, model: ModelOutline | None = None
    ) -> Stage:
        """The stage a pipeline's spec describes; inactive parameters take their defaults. Without
        the task, it has no parameters that the task brings. `model` is the untouched one's outline.
        """
        card = cls.card(model)
        if task:
            card = fix_for_task(card, task.brought(), preferred=cls.preferred(task))
        return cls(**fields_of(cls, card.normalize(spec.params).params))
