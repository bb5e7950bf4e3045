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

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from petra.core.pipeline import StageSpec, Value
from petra.core.rng import derive_seed
from petra.core.trial import StageTrace
from petra.space.domains import Domain, Parameter
from petra.space.effects import Effects
from petra.space.outline import ModelOutline
from petra.space.space import StageCard

if TYPE_CHECKING:
    from torch import nn

    from petra.tasks.base import Task

V = TypeVar("V", bound=Value)


@dataclass(frozen=True)
class FromModel:
    """A domain that the untouched model decides: `of(outline)`, and `unknown`, at least as wide,
    while there is no model to look at. `of` gives a domain for any model, whatever it lacks.
    """

    of: Callable[[ModelOutline], Domain]
    unknown: Domain


@dataclass(frozen=True)
class _Declaration:
    """What a field's metadata says of the parameters that it declares."""

    domain: Domain | FromModel
    limits: Domain | None
    doc: str
    when: Mapping[str, tuple[Value, ...] | Domain]
    scope: str = ""
    each: Callable[[ModelOutline], Iterable[str]] | None = None
    default: Value = ""

    def parameters(
        self, f: dataclasses.Field[Any], model: ModelOutline | None
    ) -> Iterator[Parameter]:
        domain = self.domain
        if isinstance(domain, FromModel):
            domain = domain.of(model) if model else domain.unknown
        default = self.default if self.each else cast(Value, f.default)
        limits = self.limits or domain
        declared = Parameter(f.name, default, domain, limits, self.doc, self.when, self.scope)
        if self.each is None:
            yield declared
            return
        for name in self.each(model) if model else ("*",):
            yield replace(declared, name=f"{f.name}.{name}")


def parameter(
    default: V,
    domain: Domain | FromModel,
    doc: str,
    *,
    limits: Domain | None = None,
    when: Mapping[str, tuple[Value, ...] | Domain] | None = None,
    scope: str = "",
) -> V:
    """Declare a stage parameter as a dataclass field, from which space, CLI, docs and validation
    all derive. `default` lies in every domain that a `FromModel` may give.
    """
    meta = _Declaration(domain, limits, doc, when or {}, scope)
    declared: V = field(default=default, metadata={"petra": meta})
    return declared


def parameters(
    each: Callable[[ModelOutline], Iterable[str]],
    default: V,
    domain: Domain,
    doc: str,
    *,
    limits: Domain | None = None,
    when: Mapping[str, tuple[Value, ...] | Domain] | None = None,
) -> Mapping[str, V]:
    """Declare a family: a parameter "field.name" for each name, unique, that `each(outline)` gives,
    such as the paths of some modules. In the stage the field maps these names to their values; it
    lacks those that a stage was made without, and those that its spec leaves out by `when`.

    >>> layers: Mapping[str, bool] = parameters(
    ...     lambda model: [m.path for m in model.blocks], True, BOOLEAN, "whether it is treated"
    ... )
    """
    meta = _Declaration(domain, limits, doc, when or {}, each=each, default=default)
    declared: Mapping[str, V] = field(default_factory=dict, metadata={"petra": meta})
    return declared


@dataclass(frozen=True)
class Context:
    """What a stage may use besides the model.

    `teacher` is the untouched model (never modify it). `seed` is derived from study seed and
    pipeline prefix; draw further seeds with `seed_for(purpose)`. `progress(done, total, note)`
    reports steps; `device` is torch's name.
    """

    task: Task
    teacher: nn.Module
    seed: int
    device: str = "cpu"
    progress: Callable[[int, int, str], None] = lambda done, total, note: None

    def seed_for(self, *purpose: str | int) -> int:
        return derive_seed(self.seed, *purpose)


@dataclass(frozen=True)
class Stage(ABC):
    """A training or compression operation on a model. Instances hold the parameters; `apply` does
    the work.
    """

    name: ClassVar[str]
    effects: ClassVar[Effects]

    @abstractmethod
    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        """Act on `model` (which it owns and may modify in place) and say what was done.

        Raises StageRefused, naming the layer where there is one, when it cannot act: it never
        returns the model unchanged as if it had worked. The trace's sizes and seconds are filled in
        by the caller.
        """

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        """Why no setting of this stage can treat the untouched `model`, read off its structure; ""
        where one may.

        A search over all stages leaves those out that object. The model is in eval mode on the CPU;
        it may be run, and ends as it began. Costs a few forward passes at most.
        """
        return ""

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
        """The declaration that the search, the CLI and the docs read, for the untouched `model`;
        without one, what holds for any.
        """
        declared = tuple(
            p
            for f in dataclasses.fields(cls)
            for p in cast(_Declaration, f.metadata["petra"]).parameters(f, model)
        )
        summary = (cls.__doc__ or "").strip().split("\n\n")[0]
        return StageCard(cls.name, declared, cls.effects, " ".join(summary.split()))

    @classmethod
    def from_spec(cls, spec: StageSpec, model: ModelOutline | None = None) -> Stage:
        """The stage a pipeline's spec describes; inactive parameters take their defaults. `model`
        is the outline of the untouched model.
        """
        normal = cls.card(model).normalize(spec.params).params
        values: dict[str, Any] = {
            f.name: {} for f in dataclasses.fields(cls) if f.metadata["petra"].each
        }
        for name, value in normal.items():
            head, dot, member = name.partition(".")
            if dot:
                values[head][member] = value
            else:
                values[name] = value
        return cls(**values)
