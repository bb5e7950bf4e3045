"""Low-rank decomposition: a layer becomes two thinner ones, by a truncated SVD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from petra.core.trial import StageTrace
from petra.methods.base import Context, parameter
from petra.methods.lowrank import losses
from petra.methods.lowrank.activations import Moments, output_moments
from petra.methods.lowrank.decomposition import Decomposition, ExactSVD, RandomizedSVD, WhitenedSVD
from petra.methods.lowrank.factorize import svd
from petra.methods.lowrank.modules import TrainableFactors
from petra.methods.lowrank.stage import Decide, Decompose
from petra.methods.lowrank.swap import swap
from petra.methods.lowrank.unfold import Calls, unfold
from petra.methods.lowrank.work import Work
from petra.methods.training import LR, OPTIMIZER, run_fit
from petra.model.surgery import replace_module
from petra.space.domains import Choice, Integer, Real
from petra.training.loop import TrainConfig

MAX_EPOCHS = 1000
TRAINED = {"epochs": Integer(1, MAX_EPOCHS)}


@dataclass(frozen=True)
class SVDDecompose(Decompose):
    """Replace linear, convolutional and embedding layers by thinner ones, by a truncated SVD.

    Convolutions are unfolded by channel (a thin convolution, then 1x1: Denton et al. 2014) or
    spatially ((1, kw), then (kh, 1): Jaderberg et al. 2014); three-dimensional ones by channel
    either way, as are all with `whitened`, whose directions are those of output channels.
    Decomposers: `svd`, exact; `randomized`, a sketch (Halko et al. 2011), where the exact one takes
    too long (rules other than ratio still need all singular values); `whitened`, which keeps what
    matters for the layer's outputs on training items instead of for its weight, at the same cost in
    the end (after SVD-LLM, Wang et al. 2024). Into two `layers`, or three, of which the middle one
    holds the singular values as a full core for later training. One composes them back into a dense
    layer of the rank that two would have: a regulariser that saves nothing by itself, so that no
    budget goes with it.

    With `epochs`, the factors U, s, V are trained first, with penalties that keep U and V
    orthogonal and the spectrum steep (Yang et al. 2020), so that truncation costs less. They train
    at full rank, or at less and less if truncated every few epochs, which harsh rules need. A layer
    is replaced only where its rank saves at least 5% both of its weights and of its
    multiply-accumulates; all others stay dense.

    When it helps: wide layers with a steep spectrum, transformers' linear layers, large kernels
    (spatial); `whitened` and the budget rule where no training follows. When it does not: thin
    layers, 1x1 convolutions of small networks, and latency at batch 1, where two kernels can cost
    more than they save; within very few training steps the penalties hardly move a spectrum. Costs:
    seconds without training; with it, `epochs` of training at slightly more than the dense cost.
    """

    name: ClassVar[str] = "lowrank.svd"

    decomposer: str = parameter(
        "svd", Choice(("svd", "randomized", "whitened")), "what finds the factors"
    )
    unfold: str = parameter(
        "channel", Choice(("channel", "spatial")), "how a convolution's weight becomes a matrix",
        when={"decomposer": ("svd", "randomized")},
    )  # fmt: skip
    samples: int = parameter(
        256, Choice((128, 256, 512)), "training items whose activations count",
        limits=Integer(1, 10**6), when={"decomposer": ("whitened",)},
    )  # fmt: skip
    epochs: int = parameter(
        0, Integer(0, 3), "passes over the training split before truncation",
        limits=Integer(0, MAX_EPOCHS), when={"decomposer": ("svd",)},
    )  # fmt: skip
    truncate_every: int = parameter(
        0, Integer(0, 2),
        "epochs between truncations, each of which anneals anew; 0: only at the end",
        limits=Integer(0, MAX_EPOCHS), when=TRAINED,
    )  # fmt: skip
    optimizer: str = parameter("sgd", OPTIMIZER, "optimizer", scope="optimizer", when=TRAINED)
    lr: float = parameter(
        0.01, Real(1e-4, 0.1, log=True), "peak learning rate", limits=LR, when=TRAINED
    )
    orthogonality: float = parameter(
        1.0,
        Real(0.01, 10.0, log=True),
        "weight of the orthogonality penalty",
        limits=Real(0.0, 1e4),
        when=TRAINED,
    )
    hoyer: float = parameter(
        0.3,
        Real(0.01, 10.0, log=True),
        "weight of the Hoyer penalty",
        limits=Real(0.0, 1e4),
        when=TRAINED,
    )

    def training_epochs(self) -> int:
        return self.epochs if self.decomposer == "svd" else 0

    def untrained(self) -> SVDDecompose:
        """Truncated as it comes; rules that look at the spectrum may then keep other ranks."""
        return replace(self, epochs=0) if self.training_epochs() else self

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        """Without training, and by the exact decomposition, whose ranks are the same."""
        plain = replace(self, epochs=0, decomposer="svd")
        return super(SVDDecompose, plain).rehearse(model, context)

    @property
    def _convolutions(self) -> str:
        return "channel" if self.decomposer == "whitened" else self.unfold

    def _objection(self, how: str) -> str:
        if self.decomposer == "whitened" and how == "transposed":
            return (
                "the outputs of transposed convolutions overlap, so their activations do not say"
                " what to keep"
            )
        return ""

    def _decomposition(
        self, layer: nn.Module, path: str, how: str, calls: Calls, context: Context
    ) -> Decomposition:
        if self.decomposer == "randomized":
            return RandomizedSVD(
                layer, how, calls, self.layers, seed=context.seed_for("sketch", path)
            )
        return ExactSVD(layer, how, calls, self.layers)

    def _decompositions(self, work: Work) -> dict[str, Decomposition]:
        if self.decomposer != "whitened":
            return super()._decompositions(work)
        moments: Mapping[str, Moments] = output_moments(
            work.model, work.layers, work.batches(self.samples)
        )
        return {
            path: WhitenedSVD(
                work.model.get_submodule(path),
                how,
                work.calls[path],
                self.layers,
                moments=moments[path],
            )
            for path, how in work.layers.items()
        }

    def _train(self, work: Work, decide: Decide) -> Mapping[str, object]:
        """Train factors inside the model, then put dense layers in their place.

        Embeddings train as they are: composing a table of a whole vocabulary in every step costs
        too much.
        """
        if not self.epochs or self.decomposer != "svd":
            return {}
        trained: dict[str, Any] = {
            path: TrainableFactors(work.model.get_submodule(path), how)
            for path, how in work.layers.items()
            if how != "lookup"
        }
        failed = swap(work.model, trained, work.example)
        work.give_up(failed)
        trained = {path: module for path, module in trained.items() if path not in failed}
        if not trained:
            return {
                "not_trained": (
                    f"no layer trains in decomposed form for {self.epochs} epochs: embeddings"
                    " do not"
                )
            }
        truncation = _Truncation(trained, work.calls, self.layers, decide)

        def penalty() -> Tensor:
            factors = [m.factors for m in trained.values()]
            return self.orthogonality * losses.orthogonality(factors) + self.hoyer * losses.hoyer(
                factors
            )

        rounds: list[Mapping[str, object]] = []
        hook = work.model.register_forward_pre_hook(truncation.preview)
        try:
            while left := self.epochs - sum(r["epochs"] for r in rounds):  # type: ignore[misc]
                if rounds:
                    truncation.apply()
                epochs = min(left, self.truncate_every or left)
                config = TrainConfig(epochs=epochs, lr=self.lr, optimizer=self.optimizer)
                trace: StageTrace
                _, trace = run_fit(
                    f"{self.name} {len(rounds)}", work.model, config, work.context, penalty=penalty
                )
                rounds.append(trace.details)
        finally:
            hook.remove()
        with torch.no_grad():
            factors = [m.factors for m in trained.values()]
            final = {
                "orthogonality": float(losses.orthogonality(factors)),
                "hoyer": float(losses.hoyer(factors)),
            }
        for path, module in trained.items():
            replace_module(work.model, path, module.as_dense())
        return {"training": {"rounds": rounds, **{k: round(v, 5) for k, v in final.items()}}}


@dataclass
class _Truncation:
    """What the rule makes of factors in training.

    It goes by the singular values of the composed weights: those of trained factors are only nearly
    orthogonal, and only true singular values say what truncation loses. Layers whose rank saves
    nothing keep theirs, as they will stay dense in the end.
    """

    trained: Mapping[str, TrainableFactors]
    calls: Mapping[str, Calls]
    layers: int
    decide: Decide

    def _kept(self) -> dict[str, tuple[TrainableFactors, Decomposition, int]]:
        parts: dict[str, Decomposition] = {
            path: ExactSVD(module, module.how, self.calls[path], self.layers)
            for path, module in self.trained.items()
        }
        ranks = self.decide(parts)
        return {
            path: (self.trained[path], parts[path], k[0])
            for path, k in ranks.items()
            if parts[path].saves(k)
        }

    def preview(self, model: nn.Module, inputs: object) -> None:
        """Before a pass in evaluation: let layers compute with what truncation would leave."""
        if model.training or all(m.preview is not None for m in self.trained.values()):
            return
        with torch.no_grad():
            for module in self.trained.values():
                module.preview = module.weight
            for module, part, k in self._kept().values():
                module.preview = part.approximation((k,))

    def apply(self) -> None:
        """Truncate the factors themselves."""
        with torch.no_grad():
            for module, part, k in self._kept().values():
                module.set_factors(svd(unfold(part.weight, module.how)).truncate(k))
