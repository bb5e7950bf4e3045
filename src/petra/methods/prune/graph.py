"""Torch-Pruning's dependency graph (Fang et al. 2023, "DepGraph") of a model, with layers addressed by path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, call, named_outputs

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
# What a model's code raises when a tensor no longer has the width the code counts on.
BREAKAGE = (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError, AssertionError, ArithmeticError)


class ChannelGraph:
    """Torch-Pruning's view of `model`, with layers addressed by path. Build it inside `differentiable(model)`."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        """Raises StageRefused when the model cannot be traced."""
        self.model = model
        self.paths: dict[nn.Module, str] = {module: path for path, module in model.named_modules()}
        self.graph = tp.DependencyGraph()
        with evaluating(model):
            try:
                self.graph.build_dependency(model, example, forward_fn=_traced_outputs, verbose=False)
            except BREAKAGE as error:
                raise StageRefused(f"cannot trace how channels depend on each other: {first_line(error)}") from error

    def roots(self) -> list[tuple[str, Any]]:
        """Root layer and full group of every set of coupled output channels. Raises StageRefused when that fails."""
        try:
            groups = list(self.graph.get_all_groups())
        except BREAKAGE as error:
            raise StageRefused(f"cannot follow how channels depend on each other: {first_line(error)}") from error
        return [(self.paths[group[0].dep.target.module], group) for group in groups]

    def group(self, root: str, channels: Sequence[int]) -> Any:
        """Everything that goes when `channels` of `root`'s output go."""
        module = self.model.get_submodule(root)
        cut = self.graph.get_pruner_of_module(module).prune_out_channels
        return self.graph.get_pruning_group(module, cut, list(channels))

    def width(self, root: str) -> int:
        return int(self.graph.get_out_channels(self.model.get_submodule(root)))

    def narrows(self, dep: Any) -> bool:
        """Whether the operation removes output channels (norms and depthwise layers: inputs and outputs alike)."""
        return bool(self.graph.is_out_channel_pruning_fn(dep.handler))

    def reads(self, dep: Any) -> bool:
        """Whether the operation only removes inputs that a weighted layer mixes."""
        return isinstance(dep.target.module, WEIGHTED) and not self.narrows(dep)

    def narrowed_layers(self, group: Any) -> tuple[str, ...]:
        modules = [d.target.module for d, _ in group if isinstance(d.target.module, WEIGHTED) and self.narrows(d)]
        return tuple(dict.fromkeys(self.paths[m] for m in modules))


def outputs_of(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    return list(named_outputs(call(model, inputs)).values())


def _traced_outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    return [t for t in outputs_of(model, inputs) if t.grad_fn is not None]


def channel_dim(module: nn.Module) -> int:
    """Dimension of the weight that counts output channels."""
    return 1 if getattr(module, "transposed", False) else 0


def first_line(error: BaseException) -> str:
    """What an error of the model's own code says, short enough to quote."""
    lines = str(error).splitlines()
    return lines[0][:160] if lines else type(error).__name__
