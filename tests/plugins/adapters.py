"""Low-rank adapters as two stages: one trains nothing but what it adds, the other folds that away.

Everything here is a third party's: it imports petra, and petra does not know it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, FromModel, Stage, parameter, parameters
from petra.methods.table import STAGES
from petra.methods.training import LR, OPTIMIZER, TrainingStage
from petra.model.layers.quantized import DynamicQuantizedLinear, Int4Linear
from petra.model.surgery import replace_module
from petra.model.trainability import freeze, unfreeze
from petra.space.domains import BOOLEAN, Choice, Domain, Integer, Real, Text
from petra.space.effects import FLOAT_WEIGHTS, INPUT_GRADIENTS, Effects
from petra.space.outline import ModelOutline
from petra.tasks.base import Task

ADAPTERS = "adapters"  # low-rank branches lie beside layers
ADAPTABLE = (nn.Linear, DynamicQuantizedLinear, Int4Linear)


class Adapted(nn.Module):
    """A linear layer W with a branch beside it: W x + scale B A x, A (r, in), B (out, r)."""

    def __init__(
        self, base: nn.Module, rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        inputs, outputs = int(base.in_features), int(base.out_features)  # type: ignore[arg-type]
        self.base, self.scale = base, scale
        self.down, self.up = (
            nn.Linear(inputs, rank, bias=False),
            nn.Linear(rank, outputs, bias=False),
        )
        with torch.no_grad():
            self.down.weight.normal_(0.0, 1 / math.sqrt(inputs), generator=generator)
            self.up.weight.zero_()  # at first, the model computes what it did

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base(x) + self.scale * self.up(self.down(x))
        return result


def _layers(model: ModelOutline) -> list[str]:
    return [layer.path for layer in model.of_kind("Linear") if layer.path]


def _names(model: ModelOutline) -> Domain:
    """All linear layers, or those of one name: "query" is every block's query."""
    names = sorted({path.rpartition(".")[2] for path in _layers(model)})
    return Choice(("all", *(name for name in names if not name.isdigit())))


def _blocks(model: ModelOutline) -> Iterable[str]:
    """The blocks that hold linear layers; of a model without blocks, the linear layers."""
    layers = _layers(model)
    blocks = [b.path for b in model.blocks if any(path.startswith(f"{b.path}.") for path in layers)]
    return blocks or layers


@dataclass(frozen=True)
class Adapt(TrainingStage):
    """Train low-rank branches beside linear layers, and nothing else (LoRA, Hu et al. 2022).

    Which layers: those of one name, and a bit for every block of the model. The base may be float,
    or quantized with gradients passing through it (QLoRA, Dettmers et al. 2023).

    When it helps: little data for a large model, and repair of a quantized one. When it does not:
    where all weights may change. Costs: forward and backward passes over the training split.
    """

    name: ClassVar[str] = "adapt.lora"
    effects: ClassVar[Effects] = Effects.of(
        needs=[INPUT_GRADIENTS], forbids=[ADAPTERS], gives=[ADAPTERS]
    )

    optimizer: str = parameter("adamw", OPTIMIZER, "optimizer", scope="optimizer")
    lr: float = parameter(0.01, Real(1e-3, 0.1, log=True), "peak learning rate", limits=LR)
    rank: int = parameter(4, Choice((1, 2, 4, 8)), "rank of a branch", limits=Integer(1, 1024))
    targets: str = parameter(
        "all", FromModel(_names, Text("all", "all, or a name of layers")), "which linear layers"
    )
    layers: Mapping[str, bool] = parameters(_blocks, True, BOOLEAN, "whether it is adapted")

    def untrained(self) -> Stage:
        """The branches are there, and change nothing yet."""
        return replace(self, epochs=0)

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        found = any(isinstance(m, ADAPTABLE) for path, m in model.named_modules() if path)
        return "" if found else "the model has no linear layer"

    @classmethod
    def modules(cls) -> tuple[type[nn.Module], ...]:
        return (Adapted,)

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        chosen = [path for path, m in model.named_modules() if self._chosen(path, m)]
        if not chosen:
            raise StageRefused("none of the chosen parts of the model has a linear layer")
        generator = torch.Generator().manual_seed(context.seed_for("branches"))
        for path in chosen:
            layer = model.get_submodule(path)
            replace_module(model, path, Adapted(layer, self.rank, 2.0, generator))
        branches = [part for m in _adapted(model).values() for part in (m.down, m.up)]
        freeze(model, but=branches)
        model, trace = self.train(
            model, context, lambda hard: lambda outputs, inputs, target: hard(outputs, target)
        )
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        details = {**trace.details, "trained_parameters": count}
        return model, replace(trace, touched=tuple(chosen), skipped={}, details=details)

    def _chosen(self, path: str, module: nn.Module) -> bool:
        if not path or not isinstance(module, ADAPTABLE):
            return False
        inside = [self.layers[b] for b in self.layers if path == b or path.startswith(f"{b}.")]
        named = self.targets in ("all", path.rpartition(".")[2])
        return named and (inside[0] if inside else not self.layers)


@dataclass(frozen=True)
class Merge(Stage):
    """Fold low-rank branches into the layers they lie beside: W + scale B A.

    When it helps: always where the base is float; the model is as fast as before. When it does not:
    on a quantized base, whose codes cannot hold the sum, so that branches stay. Costs: nothing.
    """

    name: ClassVar[str] = "adapt.merge"
    effects: ClassVar[Effects] = Effects.of(needs=[ADAPTERS, FLOAT_WEIGHTS], removes=[ADAPTERS])

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        adapted = _adapted(model)
        if not adapted:
            raise StageRefused("no layer has a branch to be folded in")
        for path, module in adapted.items():
            base: Any = module.base
            with torch.no_grad():
                base.weight += module.scale * module.up.weight @ module.down.weight
            replace_module(model, path, base)
        unfreeze(model)  # nothing is left of what the rest was frozen for
        return model, StageTrace(self.name, touched=tuple(adapted))


def _adapted(model: nn.Module) -> dict[str, Adapted]:
    return {path: m for path, m in model.named_modules() if isinstance(m, Adapted)}


def register() -> None:
    """What a package of stages does when it is imported."""
    STAGES.register(Adapt.name, Adapt)
    STAGES.register(Merge.name, Merge)


def forget() -> None:
    STAGES.forget(Adapt.name, Merge.name)
