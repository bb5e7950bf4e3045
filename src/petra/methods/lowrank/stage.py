"""What the low-rank stages share: which layers, which ranks, and putting the factors in place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Value
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.effect import LEAST, check_effect, held_elsewhere, inside
from petra.methods.lowrank.budget import spread_budget
from petra.methods.lowrank.decomposition import Decomposition, Ranks
from petra.methods.lowrank.modules import Factored, how_to_unfold
from petra.methods.lowrank.rank import (
    rank_by_absolute_sum,
    rank_by_energy,
    rank_by_explained_variance,
    ranks_by_quantile,
)
from petra.methods.lowrank.swap import swap
from petra.methods.lowrank.unfold import Calls
from petra.methods.lowrank.work import Work, not_decomposed, per_item
from petra.model.kinds import MIXING_LAYERS
from petra.model.reach import why_not_followed
from petra.model.surgery import (
    count_parameters,
    has_derived_weight,
    layer_shapes,
    shared_weights,
)
from petra.space.domains import BOOLEAN, Choice, Real
from petra.space.effects import DENSE_WEIGHTS, FLOAT_WEIGHTS, PLAIN_LAYERS, TRAINABLE, Effects
from petra.tasks.base import Task
from petra.tasks.inputs import batch_size, call, map_inputs, named_outputs

RULES = ("ratio", "energy", "explained_variance", "quantile", "absolute_sum", "budget")
NOT_CALLED = "it is never called with a tensor"
SHARE = Real(0.001, 1.0)

Decide = Callable[[Mapping[str, Decomposition]], dict[str, Ranks]]
"""Ranks for layers given their decompositions; a layer that is left out stays dense."""


@dataclass(frozen=True)
class Decompose(Stage):
    """A stage that replaces layers by thinner ones. Subclasses say how one layer is decomposed."""

    effects: ClassVar[Effects] = Effects.of(
        needs=[FLOAT_WEIGHTS, TRAINABLE, PLAIN_LAYERS, DENSE_WEIGHTS], removes=[PLAIN_LAYERS]
    )

    # Layers that stay one cost what they did: no budget is kept.
    clashes: ClassVar[tuple[Mapping[str, tuple[Value, ...]], ...]] = (
        {"rule": ("budget",), "layers": (1,)},
    )

    rule: str = parameter("ratio", Choice(RULES), "what decides a layer's rank")
    ratio: float = parameter(
        0.4,
        Real(0.1, 0.8),
        "share of each layer's singular values kept",
        limits=SHARE,
        when={"rule": ("ratio",)},
    )
    energy: float = parameter(
        0.95,
        Real(0.7, 0.999),
        "share of squared singular values kept",
        limits=SHARE,
        when={"rule": ("energy",)},
    )
    explained_variance: float = parameter(
        0.95, Real(0.7, 0.999), "share of the variance around the mean kept", limits=SHARE,
        when={"rule": ("explained_variance",)},
    )  # fmt: skip
    quantile: float = parameter(
        0.6, Real(0.2, 0.9),
        "quantile of all layers' relative singular values, below which they go",
        limits=Real(0.0, 1.0), when={"rule": ("quantile",)},
    )  # fmt: skip
    absolute_sum: float = parameter(
        0.7, Real(0.4, 0.95), "share of the sum of singular values kept", limits=SHARE,
        when={"rule": ("absolute_sum",)},
    )  # fmt: skip
    budget: float = parameter(
        0.6, Real(0.2, 0.9), "share of these layers' cost kept, spread by measured sensitivity",
        limits=SHARE, when={"rule": ("budget",)},
    )  # fmt: skip
    budget_of: str = parameter(
        "params", Choice(("params", "macs")), "the cost", when={"rule": ("budget",)})  # fmt: skip
    embeddings: bool = parameter(True, BOOLEAN, "decompose embeddings too")
    layers: int = parameter(
        2, Choice((1, 2, 3), usual=2),
        "layers that one becomes; 1: itself, dense, at the rank that two would have",
    )  # fmt: skip

    @property
    def structure_from_weights(self) -> bool:
        return self.rule != "ratio"

    @property
    @abstractmethod
    def _convolutions(self) -> str:
        """How convolutions are unfolded."""

    @abstractmethod
    def _decomposition(
        self, layer: nn.Module, path: str, how: str, calls: Calls, context: Context
    ) -> Decomposition:
        """Lazy: costs can be asked for before anything is computed."""

    def _objection(self, how: str) -> str:
        """Why this stage does not decompose layers unfolded so; '' if it does."""
        return ""

    def _train(self, work: Work, decide: Decide) -> Mapping[str, object]:
        """Prepare the weights for truncation; details for the trace."""
        return {}

    @classmethod
    def modules(cls) -> tuple[type[nn.Module], ...]:
        return (Factored,)

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        paths = [path for path, m in model.named_modules() if path and how_to_unfold(m, "channel")]
        rest = held_elsewhere(model, inside(model, paths), {})
        held = 1 - sum(rest.values())
        return "" if held >= LEAST else f"what it treats has {held:.1%} of the parameters"

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        return self.apply(model, context)[0]

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        if self.layers == 1 and self.rule == "budget":
            raise StageRefused(
                "layers that stay one cost what they did: no budget is kept",
                hint="take another rule",
            )
        model.to(context.device)
        example = map_inputs(context.task.example(2), lambda t: t.to(context.device))
        calls = layer_shapes(model, lambda m: call(m, example))
        items = batch_size(example)
        work = Work(model, context, example, per_item(model, calls, items))
        elements = count_parameters(model)
        self._choose_layers(work)
        decide = self._decider(work)
        details = dict(self._train(work, decide))
        parts = self._decompositions(work)
        ranks = decide(parts)
        replacements: dict[str, nn.Module] = {}
        record: dict[str, dict[str, object]] = {}
        for path, part in parts.items():
            if path not in ranks:
                work.skipped[path] = "left dense by the budget"
            elif not part.saves(ranks[path]):
                work.skipped[path] = (
                    f"rank {_plain(ranks[path])} of {_plain(part.full)} saves too little: left"
                    " dense"
                )
            else:
                dense, cost = part.dense, part.cost(ranks[path])
                record[path] = {
                    "rank": [_plain(part.full), _plain(ranks[path])],
                    "params": [dense.params, cost.params],
                    "macs": [dense.macs, cost.macs],
                }
                replacements[path] = part.module(ranks[path])
        work.give_up(swap(model, replacements, example))
        record = {path: r for path, r in record.items() if path not in work.skipped}
        if not record:
            raise StageRefused(
                f"no layer becomes cheaper by its decomposition under the {self.rule} rule",
                hint="; ".join(f"{path}: {why}" for path, why in list(work.skipped.items())[:5]),
            )
        changed = sum(
            before - after if self.layers > 1 else before for before, after in _elements(record)
        )
        check_effect(
            "saves" if self.layers > 1 else "lowers the rank of", changed / elements, "parameters",
            asked=self._asked(), rest=held_elsewhere(model, inside(model, record), work.skipped),
        )  # fmt: skip
        details["layers"] = record
        return model, StageTrace(
            self.name, touched=tuple(record), skipped=work.skipped, details=details
        )

    def _asked(self) -> float:
        """The share of what the rule counts that is to go."""
        value: float = getattr(self, self.rule)
        return value if self.rule == "quantile" else 1 - value

    def _choose_layers(self, work: Work) -> None:
        """Fill `work.layers`, and `work.skipped` with why other weighted layers are left alone."""
        shared = shared_weights(work.model)
        for path, layer in work.model.named_modules():
            how = how_to_unfold(layer, self._convolutions)
            if not how and not isinstance(layer, MIXING_LAYERS):
                continue
            reason = self._layer_objection(work, path, layer, how, shared)
            if reason:
                work.skipped[path] = reason
            else:
                work.layers[path] = how
        uncalled = [path for path, reason in work.skipped.items() if reason == NOT_CALLED]
        if uncalled:
            reasons = why_not_followed(
                work.model, lambda m: named_outputs(call(m, work.example)).values(), uncalled
            )
            work.skipped.update({path: why for path, why in reasons.items() if why})

    def _layer_objection(
        self,
        work: Work,
        path: str,
        layer: nn.Module,
        how: str,
        shared: Mapping[str, tuple[str, ...]],
    ) -> str:
        if not path:
            return "the model is this single layer"
        if has_derived_weight(layer):
            return "its weight is computed from other parameters"
        if not how:
            return not_decomposed(layer)
        if reason := self._objection(how):
            return reason
        if how == "lookup" and not self.embeddings:
            return "embeddings are left as they are here"
        if getattr(layer, "max_norm", None) is not None:
            return "renormalises its rows (max_norm)"
        if getattr(layer, "groups", 1) != 1:
            return "grouped convolutions are not decomposed"
        if path in shared:
            return f"shares a weight with {', '.join(map(repr, shared[path]))}"
        if path not in work.calls:
            return NOT_CALLED
        part = self._decomposition(layer, path, how, work.calls[path], work.context)
        least = part.at(self.ratio if self.rule == "ratio" else 0.0)
        return (
            ""
            if part.saves(least)
            else f"rank {_plain(least)} of {_plain(part.full)} saves too little"
        )

    def _decompositions(self, work: Work) -> dict[str, Decomposition]:
        return {
            path: self._decomposition(
                work.model.get_submodule(path), path, how, work.calls[path], work.context
            )
            for path, how in work.layers.items()
        }

    def _decider(self, work: Work) -> Decide:
        """The rule. A budget is spread once, over the model as it is now."""
        if self.rule != "budget":
            return self._by_rule
        allotted = spread_budget(work, self._decompositions(work), self.budget, self.budget_of)
        return lambda parts: {path: ranks for path, ranks in allotted.items() if path in parts}

    def _by_rule(self, parts: Mapping[str, Decomposition]) -> dict[str, Ranks]:
        if self.rule == "ratio" or not parts:
            return {path: part.at(self.ratio) for path, part in parts.items()}
        spectra = {path: part.spectra() for path, part in parts.items()}
        if self.rule == "quantile":
            pooled = iter(
                ranks_by_quantile([x.s for each in spectra.values() for x in each], self.quantile)
            )
            return {path: tuple(next(pooled) for _ in each) for path, each in spectra.items()}
        if self.rule == "energy":
            return {
                p: tuple(rank_by_energy(x.s, self.energy) for x in each)
                for p, each in spectra.items()
            }
        if self.rule == "absolute_sum":
            return {
                p: tuple(rank_by_absolute_sum(x.s, self.absolute_sum) for x in each)
                for p, each in spectra.items()
            }
        tau = self.explained_variance
        return {
            p: tuple(rank_by_explained_variance(x.s, tau, x.variance) for x in each)
            for p, each in spectra.items()
        }


def _elements(record: Mapping[str, Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Weights of every layer before and after, from what a trace says of it."""
    return [(layer["params"][0], layer["params"][1]) for layer in record.values()]


def _plain(ranks: Ranks) -> object:
    """A single rank as a number."""
    return ranks[0] if len(ranks) == 1 else list(ranks)
