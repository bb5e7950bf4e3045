"""The stage of quantization-aware training: the weights learn to be right after rounding."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

from petra.core.kernels import WEIGHT_MAX
from petra.core.pipeline import Value
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter, refusal
from petra.methods.distill.distill import mixed_loss
from petra.methods.quantize.annotate import DeploymentQuantizer
from petra.methods.quantize.calibration import Calibration, observe
from petra.methods.quantize.parameters import (
    CODES,
    CODES_DOC,
    EMBEDDINGS,
    EMBEDDINGS_DOC,
    EXCLUDE,
    EXCLUDE_LIMITS,
    KEEP_DOC,
    KEEP_FLOAT,
    KEEP_LIMITS,
    STORAGE,
    check_excluded,
    excluded_layers,
    precise_ends,
)
from petra.methods.quantize.ptq import (
    check_something_is_quantized,
    converted,
    rank_layers,
    simplify,
    trace,
)
from petra.methods.quantize.quantized_share import check_kernels, check_macs
from petra.methods.quantize.simulated import SimulatedQuantization
from petra.methods.quantize.static import traced_quantization
from petra.methods.quantize.stored import replace_layers
from petra.methods.training import (
    BATCH_SIZE,
    EPOCHS,
    FROZEN,
    LOSS,
    LR,
    OPTIMIZER,
    SCHEDULE,
    WEIGHT_DECAY,
)
from petra.model.aten.graph import module_path
from petra.model.aten.macs import multiply_accumulates
from petra.model.copies.copying import copy_model
from petra.model.trainability import frozen_layers
from petra.space.declare import slots
from petra.space.domains import Choice, Integer, Real
from petra.space.effects import FLOAT_WEIGHTS, INPUT_GRADIENTS, TRAINABLE, Effects
from petra.space.space import Slot
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, Outputs, call, predictions
from petra.training.loop import LossFunction, TrainConfig, fit
from petra.training.untrained import untrained

TEMPERATURE = 4.0
"""Softening of both distributions where the teacher's outputs are matched."""


def _untrained(model: nn.Module, context: Context) -> dict[str, str]:
    """Layers that the model keeps gradients from, though its graph would not, and frozen ones.
    Raises StageRefused when it is all.
    """
    found = untrained(model, context.task.example(2))
    return found | dict.fromkeys(frozen_layers(model), FROZEN)


def _weights_of(traced: GraphModule, paths: Collection[str]) -> set[str]:
    """Names of the constants that only layers at these paths read."""
    return {
        str(node.target)
        for node in traced.graph.nodes
        if node.op == "get_attr"
        and node.users
        and all(module_path(user) in paths for user in node.users)
    }


def keep_zeros(model: nn.Module, graph: GraphModule) -> None:
    """Let training leave the zeros in the weights of `graph` alone that it would leave in those of
    `model`.

    They are the same: a folded batch norm scales rows, and symmetric codes have zero at zero.
    """
    held = dict(graph.named_parameters())
    for path, layer in model.named_modules():
        if getattr(layer, "keep_zeros", False) and f"{path}.weight".lstrip(".") in held:
            graph.get_submodule(path).keep_zeros = True  # type: ignore[assignment]


@dataclass(frozen=True)
class QuantizationAwareTrain(Stage):
    """Train with int8 rounding in the forward pass, gradients passing straight through it (Jacob et
    al. 2018).

    The graph trained is the one that ships: batch norms are folded into their layers beforehand,
    with the statistics they have (static folding, Nagel et al. 2021, section 5.2), and dropout is
    left out. The loss is the task's, mixed with a distance to the untouched model's outputs.
    Sensitive layers are found before training, as in quantize.static; int8 embeddings are rounded
    before it and stay as they are. Ranges of activations follow moving averages of the extremes; on
    tasks that are judged by their error the extremes themselves, so that no value is clipped.

    When it helps: where static quantization loses points, as with few weight codes, depthwise
    convolutions or tiny models. When it does not: where static quantization loses nothing, which is
    usual for 8 bits. Costs: epochs of about three times the price of float ones, and one teacher
    forward pass per step when `alpha` is not 0.
    """

    name: ClassVar[str] = "quantize.qat"
    effects: ClassVar[Effects] = Effects.of(
        needs=[FLOAT_WEIGHTS, TRAINABLE], removes=[FLOAT_WEIGHTS, TRAINABLE, INPUT_GRADIENTS]
    )
    epoch_cost: ClassVar[float] = 3.0

    epochs: int = parameter(
        2, Integer(1, 6, log=True), "passes over the training split", limits=EPOCHS
    )
    alpha: float = parameter(
        0.5,
        Choice((0.0, 0.5, 0.9)),
        "weight of matching the untouched model",
        limits=Real(0.0, 1.0),
    )
    optimizer: str = parameter("sgd", OPTIMIZER, "optimizer", scope="optimizer")
    lr: float = parameter(0.002, Real(1e-5, 0.02, log=True), "peak learning rate", limits=LR)
    schedule: str = parameter("cosine", SCHEDULE, "learning-rate schedule after the warm-up")
    batch_size: int = parameter(128, Choice((64, 128)), "items per step", limits=BATCH_SIZE)
    weight_decay: float = parameter(
        1e-5, Real(1e-6, 1e-3, log=True), "decay of weight matrices", limits=WEIGHT_DECAY
    )
    loss: str = parameter(
        "default",
        LOSS,
        "the task's loss, the hard part",
        scope="loss",
        when={"alpha": Real(0.0, 1 - 1e-6)},
    )
    samples: int = parameter(
        256, Choice((256,)), "training items of the first ranges", limits=Integer(1, 10**6)
    )
    exclude: str = parameter("none", EXCLUDE, "layers kept in float", limits=EXCLUDE_LIMITS)
    keep_float: int = parameter(0, KEEP_FLOAT, KEEP_DOC, limits=KEEP_LIMITS)
    embeddings: str = parameter("float", EMBEDDINGS, EMBEDDINGS_DOC, limits=STORAGE)
    weight_max: int = parameter(
        WEIGHT_MAX, CODES, CODES_DOC, limits=Integer(1, 127), scope="weight codes"
    )
    brought: Mapping[str, Value] = slots(Slot("loss"))

    @property
    def structure_from_weights(self) -> bool:
        return self.keep_float > 0

    def training_epochs(self) -> int:
        return self.epochs

    def untrained(self) -> QuantizationAwareTrain:
        """Ranges of activations from calibration, weights as they come."""
        return replace(self, epochs=0)

    @classmethod
    def preferred(cls, task: Task) -> Mapping[str, Value]:
        return precise_ends(task)

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        return refusal(cls(), model, task)

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        check_kernels(model.eval(), context.task.example(2))
        return model

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model = model.to("cpu").eval()
        exclude = excluded_layers(model, self.exclude, context.task.example(2))
        check_excluded(model, exclude)
        embedded, tables = replace_layers(model, {"embedding": self.embeddings}, exclude)
        kept_away = _untrained(model, context)
        traced = trace(model, context.task.example(2), context.interface)
        simplify(traced)
        frozen = _weights_of(traced, kept_away)
        calibration = Calibration(context, self.samples)
        quantizer_for = partial(
            DeploymentQuantizer, context.kernels, exclude=exclude, weight_max=self.weight_max
        )
        ranking: dict[str, float] = {}
        if self.keep_float:
            ranking = rank_layers(traced, calibration, quantizer_for())
        follow = "extremes" if context.task.judged_by_error else "average"
        keep = list(ranking)[: self.keep_float]
        quantizer = quantizer_for(keep=keep, observer=follow, training=True)
        macs = sum(multiply_accumulates(node) for node in traced.graph.nodes)
        student = SimulatedQuantization(prepare_qat_pt2e(traced, quantizer))
        check_something_is_quantized(quantizer)
        check_macs(quantizer.calls, quantizer.others, macs)
        keep_zeros(model, student.graph)
        for name, value in student.graph.named_parameters():
            value.requires_grad_(value.requires_grad and name not in frozen)
        student.round(False)
        samples = observe(student.train(), calibration)
        student.round(True)
        fitted = fit(
            student.move(context.device),
            context.task,
            self._config(),
            seed=context.seed_for(self.name),
            device=context.device,
            loss_fn=self._loss(context) if self.alpha else None,
            progress=context.progress,
            effort=context.effort,
        )
        student.move("cpu").eval()
        for value in student.parameters():
            value.requires_grad_(False)
        with torch.no_grad():
            call(student, context.task.example(2))  # weight ranges of the weights that were kept
        notes = fitted.as_details() | {"precision": "fp32"}
        notes |= {"sensitivity": ranking} if ranking else {}
        notes |= {"untrained": kept_away} if kept_away else {}
        result = converted(student.graph, quantizer, samples=samples, total_macs=macs, notes=notes)
        return result.model, traced_quantization(self.name, result, self.samples, embedded, tables)

    def _config(self) -> TrainConfig:
        return TrainConfig(
            epochs=self.epochs,
            lr=self.lr,
            optimizer=self.optimizer,
            schedule=self.schedule,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            loss=self.loss,
            loss_values=self.brought,
        )

    def _loss(self, context: Context) -> LossFunction:
        teacher = copy_model(context.teacher).to(context.device).eval()
        hard = self._config().loss_of(context.task)
        distance = context.task.distance().having({"temperature": TEMPERATURE})

        def loss(student: Outputs, inputs: Inputs, target: Tensor) -> Tensor:
            with torch.no_grad():
                reference = predictions(call(teacher, inputs))
            return mixed_loss(hard(student, target), distance(student, reference), self.alpha)

        return loss
