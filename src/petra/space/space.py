"""The legal pipelines: which stages there are, with which parameters, in which orders, up to which
length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from petra.core.errors import ConfigError, did_you_mean
from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.space.domains import Domain, Real
from petra.space.effects import INITIAL_FACTS, Effects
from petra.space.parameters import Parameter


@dataclass(frozen=True)
class Slot:
    """Room on a card for parameters that the task brings: `kind` "loss" for those of its losses,
    "distance" for those of its distance between predictions.

    They mean something under `when`. Names in `always` are on the card, and written in pipelines,
    whatever the task: at the value given here where the task brings no such parameter.
    """

    kind: str
    when: Mapping[str, tuple[Value, ...] | Domain] = field(default_factory=dict)
    always: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class StageCard:
    """A stage as the search sees it: name, parameters in order, effects. No torch behind it.

    `slots` are filled once the task is known (`petra.space.narrow.fix_for_task`). `epoch_cost` is
    the price of an epoch of its training, in those of a plain one.

    `clashes` are settings that cannot act together, values by parameter: none is drawn, for the
    last parameter named then takes its default, or where that clashes too, another takes another
    value. A person may set them, and has the stage's refusal.

    A card that was made without a model may hold families (`Parameter.is_family`): values of their
    members are checked, and members that are not given are left out.
    """

    name: str
    parameters: tuple[Parameter, ...]
    effects: Effects
    summary: str = ""
    slots: tuple[Slot, ...] = ()
    clashes: tuple[Mapping[str, tuple[Value, ...]], ...] = ()
    epoch_cost: float = 1.0

    def parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.parameters if p.name == name), None)

    def normalize(self, params: Mapping[str, Value], *, where: str = "") -> StageSpec:
        """Fill in defaults, drop inactive parameters, check values. Raises ConfigError with the
        path of the fault.
        """
        at = where or self.name
        declared = self._declared(params)
        known = {p.name for p in declared}
        for name in params:
            if name not in known:
                raise ConfigError(
                    f"{at}.{name}: {self.name} has no such parameter",
                    hint=did_you_mean(name, {p.name for p in self.parameters}),
                )
        full = {p.name: params.get(p.name, p.default) for p in declared}
        for p in declared:
            value = full[p.name]
            fractional = isinstance(p.default, float) or isinstance(p.domain, Real)
            if fractional and isinstance(value, int) and not isinstance(value, bool):
                value = full[p.name] = float(value)
            if not p.limits.contains(value):
                raise ConfigError(f"{at}.{p.name}: got {value!r}", hint=f"allowed: {p.limits}")
        # What hangs on an inactive parameter is inactive too, so drop until nothing changes.
        live = {p.name: p for p in declared}
        while idle := [
            name for name, p in live.items() if not p.active({n: full[n] for n in live})
        ]:
            live = {name: p for name, p in live.items() if name not in idle}
        written = (n for n, p in live.items() if not (p.implied and full[n] == p.default))
        return StageSpec(self.name, {name: full[name] for name in written})

    def values(self, spec: StageSpec) -> Mapping[str, Value]:
        """Values of all active parameters of a normalized `spec`, implied ones included."""
        full = {p.name: spec.params.get(p.name, p.default) for p in self.parameters}
        return {
            p.name: full[p.name]
            for p in self.parameters
            if p.name in spec.params or (p.implied and p.active(spec.params))
        }

    def sample(self, rng: np.random.Generator) -> StageSpec:
        """Parameters drawn independently from their domains."""
        drawn = {p.name: p.domain.sample(rng) for p in self.parameters if not p.is_family}
        return self.settled(drawn)

    def settled(self, params: Mapping[str, Value]) -> StageSpec:
        """As `normalize`, without clashes."""
        spec = self.normalize(params)
        for clash in self.clashes:
            if all(spec.params.get(name) in values for name, values in clash.items()):
                spec = self.normalize({**spec.params, **self._instead(clash, spec)})
        return spec

    def _instead(
        self, clash: Mapping[str, tuple[Value, ...]], spec: StageSpec
    ) -> Mapping[str, Value]:
        """One of the parameters in a clash, with a value outside of it."""
        named = [p for p in self.parameters if p.name in clash]
        last = max(named, key=lambda p: [*clash].index(p.name))
        if last.default not in clash[last.name]:
            return {last.name: last.default}
        for p in named:  # a range that somebody narrowed has no other default
            moved = p.domain.perturb(spec.params.get(p.name, p.default), np.random.default_rng(0))
            if moved not in clash[p.name]:
                return {p.name: moved}
        return {}

    def _declared(self, names: Iterable[str]) -> tuple[Parameter, ...]:
        """The parameters, with those members in the place of a family that `names` has."""
        found: list[Parameter] = []
        for p in self.parameters:
            if p.is_family:
                found += [replace(p, name=n) for n in names if n != p.name and p.stands_for(n)]
            else:
                found.append(p)
        return tuple(found)

    @property
    def width(self) -> int:
        """How many numbers encode a stage."""
        return sum(p.domain.width for p in self.parameters)

    def encode(self, stage: StageSpec) -> tuple[float, ...]:
        """A normalized stage as `width` numbers in [0, 1]; what it leaves out is at its default."""
        values = [stage.params.get(p.name, p.default) for p in self.parameters]
        pairs = zip(self.parameters, values, strict=True)
        return tuple(number for p, value in pairs for number in p.domain.encode(value))

    def decode(self, numbers: Sequence[float]) -> StageSpec:
        """The stage that `encode` wrote; from any other numbers in [0, 1] one nearby."""
        params: dict[str, Value] = {}
        start = 0
        for p in self.parameters:
            params[p.name] = p.domain.decode(numbers[start : start + p.domain.width])
            start += p.domain.width
        return self.settled(params)


@dataclass(frozen=True)
class Space:
    """`cards` by name and the longest pipeline allowed."""

    cards: Mapping[str, StageCard]
    max_length: int = 5
    facts: frozenset[str] = field(default=INITIAL_FACTS)

    def facts_after(self, pipeline: Pipeline) -> frozenset[str]:
        """What holds after a legal pipeline."""
        facts = self.facts
        for stage in pipeline:
            facts = self.cards[stage.kind].effects.after(facts)
        return facts

    def objection(self, pipeline: Pipeline) -> str:
        """Why `pipeline` is not legal, naming the stage by position; '' when it is."""
        if len(pipeline) > self.max_length:
            return f"{len(pipeline)} stages, at most {self.max_length} allowed"
        facts, previous = self.facts, ""
        for i, stage in enumerate(pipeline):
            if stage.kind not in self.cards:
                return (
                    f"stage {i + 1}: unknown stage {stage.kind!r};"
                    f" {did_you_mean(stage.kind, self.cards)}"
                )
            if objection := self._objection(stage.kind, facts, previous):
                return f"stage {i + 1}: {objection}"
            facts, previous = self.cards[stage.kind].effects.after(facts), stage.kind
        return ""

    def is_legal(self, pipeline: Pipeline) -> bool:
        return not self.objection(pipeline)

    def normalize(self, pipeline: Pipeline, *, where: str = "pipeline") -> Pipeline:
        """The pipeline with defaults filled in and checked; raises ConfigError when a value or the
        order is illegal.
        """
        stages = []
        for i, stage in enumerate(pipeline):
            if stage.kind not in self.cards:
                raise ConfigError(
                    f"{where}[{i}].stage: unknown stage {stage.kind!r}",
                    hint=did_you_mean(stage.kind, self.cards),
                )
            stages.append(self.cards[stage.kind].normalize(stage.params, where=f"{where}[{i}]"))
        result = Pipeline(tuple(stages))
        if objection := self.objection(result):
            raise ConfigError(f"{where}: {objection}", hint=f"got: {result}")
        return result

    def sample(self, rng: np.random.Generator) -> Pipeline:
        """A random legal pipeline: a length n up to max_length, drawn with odds of 1/n, since every
        stage costs time and quality; then legal stages one by one.

        Stages after which nothing may follow come last, unless there is no other; only then is it
        shorter.
        """
        odds = 1 / np.arange(1, self.max_length + 1)
        length = 1 + int(rng.choice(self.max_length, p=odds / odds.sum()))
        stages: list[StageSpec] = []
        facts, previous = self.facts, ""
        while len(stages) < length:
            options = self.following(facts, previous, last=len(stages) + 1 == length)
            if not options:
                break
            previous = options[int(rng.integers(len(options)))]
            facts = self.cards[previous].effects.after(facts)
            stages.append(self.cards[previous].sample(rng))
        return Pipeline(tuple(stages))

    def following(self, facts: frozenset[str], previous: str, *, last: bool) -> list[str]:
        """Names of the stages that may run where `facts` hold and `previous` came before ('': none
        did). Unless it is the `last` one, those after which something may follow, if there are any.
        """
        options = self._next(facts, previous)
        if last:
            return options
        return [n for n in options if self._next(self.cards[n].effects.after(facts), n)] or options

    def _next(self, facts: frozenset[str], previous: str) -> list[str]:
        return [name for name in sorted(self.cards) if not self._objection(name, facts, previous)]

    def _objection(self, kind: str, facts: frozenset[str], previous: str) -> str:
        if kind == previous:
            return f"{kind} directly after {kind}"
        objection = self.cards[kind].effects.objection(facts)
        return f"{kind} {objection}" if objection else ""
