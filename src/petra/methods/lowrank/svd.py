"""Low-rank decomposition: a layer becomes two thinner ones, by truncated singular value decomposition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.lowrank import losses
from petra.methods.lowrank.factorize import (
    dense_cost,
    factored_cost,
    rank_by_energy,
    rank_by_ratio,
    saves,
    svd,
    unfold,
    unfolded_shape,
)
from petra.methods.lowrank.modules import Layer, TrainableFactors, factored
from petra.methods.training import LR, OPTIMIZER, run_fit
from petra.model.surgery import evaluating, has_derived_weight, layer_shapes, replace_module, shared_weights
from petra.space.domains import Choice, Integer, Real
from petra.space.effects import FLOAT_WEIGHTS, PLAIN_LAYERS, TRAINABLE, Effects
from petra.tasks.inputs import Inputs, call, map_inputs
from petra.training.loop import TrainConfig

Calls = Mapping[str, tuple[tuple[torch.Size, torch.Size], ...]]
MAX_EPOCHS = 1000
TRAINED = {"epochs": tuple(range(1, MAX_EPOCHS + 1))}


@dataclass(frozen=True)
class SVDDecompose(Stage):
    """Replace linear and convolutional layers by two thinner ones each, from a truncated SVD of the weight.

    Convolutions are unfolded by channel (a thin convolution, then 1x1: Denton et al. 2014) or spatially ((1, kw), then
    (kh, 1): Jaderberg et al. 2014). With `epochs`, the factors U, s, V are trained at full rank first, with penalties
    that keep U and V orthogonal and the spectrum steep (Yang et al. 2020), so that truncation costs less. A layer is
    replaced only where its rank saves both weights and multiply-accumulates; all others stay dense.

    When it helps: wide layers with a steep spectrum, transformers' linear layers, large kernels (spatial). When it does
    not: thin layers, 1x1 convolutions of small networks, and latency at batch 1, where two kernels can cost more than
    they save; within very few training steps the penalties hardly move a spectrum. Costs: seconds without training;
    with it, `epochs` of training at slightly more than the dense cost.
    """

    name: ClassVar[str] = "lowrank.svd"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE, PLAIN_LAYERS], removes=[PLAIN_LAYERS])

    unfold: str = parameter("channel", Choice(("channel", "spatial")), "how a convolution's weight becomes a matrix")
    rule: str = parameter("energy", Choice(("ratio", "energy")), "what decides a layer's rank")
    ratio: float = parameter(
        0.4, Real(0.1, 0.8), "share of singular values kept", limits=Real(0.001, 1.0), when={"rule": ("ratio",)}
    )
    energy: float = parameter(
        0.95, Real(0.7, 0.999), "share of squared singular values kept", limits=Real(0.01, 1.0),
        when={"rule": ("energy",)},
    )  # fmt: skip
    epochs: int = parameter(
        0, Integer(0, 3), "passes over the training split before truncation", limits=Integer(0, MAX_EPOCHS)
    )
    optimizer: str = parameter("sgd", OPTIMIZER, "optimizer", scope="optimizer", when=TRAINED)
    lr: float = parameter(0.01, Real(1e-4, 0.1, log=True), "peak learning rate", limits=LR, when=TRAINED)
    orthogonality: float = parameter(
        1.0, Real(0.01, 10.0, log=True), "weight of the orthogonality penalty", limits=Real(0.0, 1e4), when=TRAINED
    )
    hoyer: float = parameter(
        0.3, Real(0.01, 10.0, log=True), "weight of the Hoyer penalty", limits=Real(0.0, 1e4), when=TRAINED
    )

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model.to(context.device)
        example = map_inputs(context.task.example(2), lambda t: t.to(context.device))
        calls = _calls_per_item(model, example)
        layers, skipped = self._eligible(model, calls)
        details: dict[str, object] = {}
        if self.epochs and layers:
            details["training"] = self._train(model, layers, skipped, example, context)
        chosen: dict[str, dict[str, list[int]]] = {}
        for path in layers:
            if path in skipped:
                continue
            reason, record = self._replace(model, path, calls, example)
            if reason:
                skipped[path] = reason
            else:
                chosen[path] = record
        if not chosen:
            raise StageRefused(
                f"no layer becomes cheaper by its {self.unfold} decomposition under the {self.rule} rule",
                hint="; ".join(f"{path}: {why}" for path, why in list(skipped.items())[:5]),
            )
        details["layers"] = chosen
        return model, StageTrace(self.name, touched=tuple(chosen), skipped=skipped, details=details)

    def _eligible(self, model: nn.Module, calls: Calls) -> tuple[list[str], dict[str, str]]:
        """Paths worth decomposing, in order, and why other weighted layers are not."""
        shared = shared_weights(model)
        layers, skipped = [], {}
        for path, module in model.named_modules():
            if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                continue
            if reason := self._objection(path, module, calls, shared):
                skipped[path] = reason
            else:
                layers.append(path)
        return layers, skipped

    def _objection(self, path: str, module: nn.Module, calls: Calls, shared: Mapping[str, tuple[str, ...]]) -> str:
        if not path:
            return "the model is this single layer"
        if type(module) not in (nn.Linear, nn.Conv1d, nn.Conv2d):
            return f"{type(module).__name__} layers are not decomposed"
        if getattr(module, "groups", 1) > 1:
            return "grouped convolutions are not decomposed"
        if path in shared:
            return f"shares a weight with {', '.join(map(repr, shared[path]))}"
        if has_derived_weight(module):
            return "its weight is computed from other parameters"
        if path not in calls:
            return "the example inputs do not reach it"
        shape = module.weight.shape
        assert isinstance(shape, torch.Size)
        full = min(unfolded_shape(shape, self.unfold))
        least = rank_by_ratio(torch.ones(full), self.ratio) if self.rule == "ratio" else 1
        return "" if saves(shape, least, self.unfold, calls[path]) else f"rank {least} of {full} saves nothing"

    def _train(
        self, model: nn.Module, layers: list[str], skipped: dict[str, str], example: Inputs, context: Context
    ) -> Mapping[str, object]:
        """Train the factors of `layers` inside the model, then put dense layers with what was learnt in their place."""
        trained: dict[str, TrainableFactors] = {}
        for path in layers:
            layer = _layer(model, path)
            trained[path] = TrainableFactors(layer, self.unfold)
            if reason := _swap(model, path, trained[path], example):
                skipped[path] = reason
                del trained[path]
        if not trained:
            return {}

        def penalty() -> Tensor:
            factors = [m.factors for m in trained.values()]
            return self.orthogonality * losses.orthogonality(factors) + self.hoyer * losses.hoyer(factors)

        config = TrainConfig(epochs=self.epochs, lr=self.lr, optimizer=self.optimizer)
        _, trace = run_fit(self.name, model, config, context, penalty=penalty)
        with torch.no_grad():
            factors = [m.factors for m in trained.values()]
            final = {"orthogonality": float(losses.orthogonality(factors)), "hoyer": float(losses.hoyer(factors))}
        for path, module in trained.items():
            replace_module(model, path, module.as_dense())
        return {**trace.details, **{k: round(v, 5) for k, v in final.items()}}

    def _replace(self, model: nn.Module, path: str, calls: Calls, example: Inputs) -> tuple[str, dict[str, list[int]]]:
        """Decompose one layer where that saves. Returns why not, or '' and [before, after] of rank, params, MACs."""
        layer = _layer(model, path)
        shape = layer.weight.shape
        # A fresh SVD of whatever was trained: trained factors are only nearly orthogonal, and only true singular
        # values say what truncation loses.
        factors = svd(unfold(layer.weight.detach(), self.unfold))
        full = len(factors.s)
        k = rank_by_ratio(factors.s, self.ratio) if self.rule == "ratio" else rank_by_energy(factors.s, self.energy)
        if not saves(shape, k, self.unfold, calls[path]):
            return f"rank {k} of {full} saves nothing: left dense", {}
        if reason := _swap(model, path, factored(layer, factors.truncate(k), self.unfold), example):
            return reason, {}
        old, new = dense_cost(shape, calls[path]), factored_cost(shape, k, self.unfold, calls[path])
        return "", {"rank": [full, k], "params": [old.params, new.params], "macs": [old.macs, new.macs]}


def _layer(model: nn.Module, path: str) -> Layer:
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    return layer


def _calls_per_item(model: nn.Module, example: Inputs) -> Calls:
    return layer_shapes(model, lambda m: call(m, example))


def _swap(model: nn.Module, path: str, module: nn.Module, example: Inputs) -> str:
    """Put `module` at `path` if the model still runs; otherwise leave things as they were and say what went wrong.

    Some models reach into a layer for its weight, which a replacement does not have.
    """
    before = model.get_submodule(path)
    replace_module(model, path, module)
    try:
        with evaluating(model), torch.no_grad():
            call(model, example)
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:
        replace_module(model, path, before)
        return f"the model uses it other than by calling it ({error})"
    return ""
