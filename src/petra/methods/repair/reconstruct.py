"""Layer-wise reconstruction: refit a pruned model's layers to the untouched model's activations,
without training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.model.kinds import WEIGHTED
from petra.model.surgery import evaluating, shared_weights
from petra.space.domains import Choice, Integer, Real
from petra.space.effects import CUT_CHANNELS, DENSE_WEIGHTS, FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.inputs import Inputs, batch_size, call, map_inputs

BATCH = 64
NOTHING = "no layer lost input channels while keeping its outputs"


def ridge(gram: Tensor, cross: Tensor, prior: Tensor, damping: float) -> Tensor:
    """argmin_W ||X W - Y||^2 + lambda ||W - W0||^2 from gram = X^T X (k, k), cross = X^T Y (k, m),
    prior W0 (k, m).

    lambda = `damping` times the mean of gram's diagonal, so that it does not depend on the number
    of samples.
    """
    penalty = damping * gram.diagonal().mean().clamp_min(1e-12)
    regular = gram + penalty * torch.eye(len(gram), dtype=gram.dtype)
    solution: Tensor = torch.linalg.solve(regular, cross + penalty * prior)
    return solution


def design(layer: nn.Module, x: Tensor) -> Tensor:
    """The rows (rows, k) that a layer multiplies its weight with; for a bias, a column of ones.

    For Conv2d the unfolded patches, k = in * kh * kw; for Linear the inputs, k = in.
    """
    if isinstance(layer, nn.Conv2d):
        padding: Any = layer.padding
        patches = functional.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
    else:
        rows = x.reshape(-1, x.shape[-1])
    if getattr(layer, "bias", None) is not None:
        rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
    return rows.double()


def outputs_as_rows(layer: nn.Module, y: Tensor) -> Tensor:
    """Outputs in the order of `design`'s rows: (rows, out)."""
    if isinstance(layer, nn.Conv2d):
        return y.flatten(2).transpose(1, 2).reshape(-1, y.shape[1]).double()
    return y.reshape(-1, y.shape[-1]).double()


def _can_refit(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return True
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    return plain and not isinstance(layer.padding, str)


@dataclass(frozen=True)
class Reconstruct(Stage):
    """Refit each layer that lost inputs so that it produces what it did in the untouched model.

    One ridge regression per layer, in the order of execution, from the pruned model's own inputs to
    the untouched model's outputs on training items (He, Zhang & Sun 2017; Luo, Wu & Lin 2017).
    Errors of earlier layers are thus made good by later ones.

    When it helps: right after pruning, in seconds, where training data is scarce or time is short;
    what follows starts from a far better model. When it does not: where no layer keeps its output
    width, after blocks were removed (the sum over the missing block cannot be refitted), or before
    long training, which forgets it. Costs: two forward passes per refitted layer over `samples`
    items, and the solution of systems of the size of one filter.
    """

    name: ClassVar[str] = "repair.reconstruct"
    effects: ClassVar[Effects] = Effects.of(
        needs=[FLOAT_WEIGHTS, TRAINABLE, DENSE_WEIGHTS, CUT_CHANNELS], removes=[CUT_CHANNELS]
    )

    samples: int = parameter(
        512, Choice((256, 512)), "training items fitted to", limits=Integer(16, 10**6)
    )
    damping: float = parameter(
        0.003, Real(1e-4, 0.1, log=True), "pull towards the present weights", limits=Real(0.0, 1e3)
    )

    @property
    def structure_from_weights(self) -> bool:
        return False

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        order, _ = self._layers(model.to("cpu"), context.teacher, context.task.example(2))
        if not order:
            raise StageRefused(NOTHING)
        return model

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model.to("cpu")
        teacher = context.teacher.to("cpu")
        batches = list(self._batches(context))
        order, skipped = self._layers(model, teacher, batches[0])
        errors: dict[str, list[float]] = {}
        with evaluating(model), evaluating(teacher), torch.no_grad():
            for i, path in enumerate(order):
                context.progress(i, len(order), path)
                errors[path] = self._refit(model, teacher, path, batches)
        if not errors:
            raise StageRefused(NOTHING, hint="put this stage after prune.structured")
        details = {"samples": sum(map(batch_size, batches)), "relative_error_before_after": errors}
        return model, StageTrace(self.name, touched=tuple(errors), skipped=skipped, details=details)

    def _batches(self, context: Context) -> Iterator[Inputs]:
        left = self.samples
        for inputs, _ in context.task.train.batches(BATCH, seed=context.seed_for("samples")):
            taken = min(left, batch_size(inputs))
            if taken == 0:
                return
            yield map_inputs(inputs, lambda t, k=taken: t[:k])  # type: ignore[misc]
            left -= taken

    def _layers(
        self, model: nn.Module, teacher: nn.Module, inputs: Inputs
    ) -> tuple[list[str], dict[str, str]]:
        """Layers to refit in the order of execution, and why others with weights are not."""
        theirs = dict(teacher.named_modules())
        shared = shared_weights(model)
        chosen: list[str] = []
        skipped: dict[str, str] = {}
        hooks = []
        for path, module in model.named_modules():
            if not isinstance(module, WEIGHTED):
                continue
            layer: Any = module
            other: Any = theirs.get(path)
            if type(other) is not type(layer) or not _can_refit(layer):
                skipped[path] = "no comparable layer in the untouched model"
            elif path in shared:
                skipped[path] = "shares its weight with another layer"
            elif layer.weight.shape[0] != other.weight.shape[0]:
                skipped[path] = "lost output channels itself"
            elif layer.weight.shape == other.weight.shape:
                skipped[path] = "lost no input channels"
            else:
                hooks.append(
                    layer.register_forward_hook(lambda m, i, o, path=path: chosen.append(path))
                )
        try:
            with evaluating(model), torch.no_grad():
                call(model, inputs)
        finally:
            for handle in hooks:
                handle.remove()
        twice = {path for path in chosen if chosen.count(path) > 1}
        skipped.update(dict.fromkeys(twice, "called more than once"))
        return [path for path in chosen if path not in twice], skipped

    def _refit(
        self, model: nn.Module, teacher: nn.Module, path: str, batches: list[Inputs]
    ) -> list[float]:
        """Refit one layer in place; relative error of its outputs before and after."""
        layer: Any = model.get_submodule(path)
        gram, cross, power = None, None, 0.0
        for inputs in batches:
            rows = design(layer, _seen(model, path, inputs, outputs=False))
            target = outputs_as_rows(layer, _seen(teacher, path, inputs, outputs=True))
            part = (rows.T @ rows, rows.T @ target)
            gram = part[0] if gram is None else gram + part[0]
            cross = part[1] if cross is None else cross + part[1]
            power += float(target.square().sum())
        assert gram is not None
        assert cross is not None
        prior = layer.weight.reshape(len(layer.weight), -1).T.double()
        if layer.bias is not None:
            prior = torch.cat([prior, layer.bias[None].double()])
        solution = ridge(gram, cross, prior, self.damping)
        weight = solution if layer.bias is None else solution[:-1]
        layer.weight.copy_(weight.T.reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(solution[-1])

        def error(w: Tensor) -> float:
            squared = float((w * (gram @ w)).sum() - 2 * (w * cross).sum()) + power
            return round(math.sqrt(max(0.0, squared / max(power, 1e-12))), 4)

        return [error(prior), error(solution)]


def _seen(model: nn.Module, path: str, inputs: Inputs, *, outputs: bool) -> Tensor:
    """What the layer at `path` takes or gives while `model` runs on `inputs`."""
    found: list[Tensor] = []

    def hook(module: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
        found.append(given if outputs else taken[0])

    handle = model.get_submodule(path).register_forward_hook(hook)
    try:
        call(model, inputs)
    finally:
        handle.remove()
    return found[0]
