"""What pruning tests cut, and what they look at afterwards."""

from __future__ import annotations

from collections.abc import Callable

import torch
import zoo
from torch import Tensor, nn

from petra.methods.base import Context
from petra.tasks.base import Task
from petra.tasks.classification import classification

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


def task_of(inputs: Callable[[int], Tensor], classes: int = 3) -> Task:
    def split(n: int) -> tuple[Tensor, Tensor]:
        return inputs(n), torch.arange(n) % classes

    return classification(split(40), split(8), split(8))


def context_of(model: nn.Module, task: Task, seed: int = 0) -> Context:
    return Context(task=task, teacher=model, seed=seed)


def settled(model: nn.Module) -> nn.Module:
    """With norms whose statistics, gains and biases are not the initial ones, in eval mode."""
    generator = torch.Generator().manual_seed(5)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean.normal_(0, 0.3, generator=generator)
            m.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.uniform_(m.weight, 0.2, 2.0, generator=generator)
            nn.init.normal_(m.bias, 0, 0.3, generator=generator)
    return model.eval()


# name -> model, inputs, layers whose outputs may be cut
ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], set[str]]] = {
    "residual": (zoo.Residual, zoo.images, {"stem", "conv1", "conv2"}),
    "dense": (zoo.Dense, zoo.images, {"a", "b", "c", "d"}),
    "chunked": (lambda: zoo.Gated(fixed=False), lambda n: zoo.rows(n, 10), {"a", "b"}),
    "fixed halves": (lambda: zoo.Gated(fixed=True), lambda n: zoo.rows(n, 10), {"b"}),
    "grouped": (zoo.Grouped, zoo.images, {"a", "g", "p"}),
    "separable": (zoo.separable, zoo.images, {"0", "3", "6"}),
    "mlp": (zoo.mlp, lambda n: zoo.rows(n, 10), {"0", "2"}),
    "temporal": (zoo.Temporal, lambda n: zoo.rows(n, 2, 20), {"a", "b"}),
    "squeeze-excite": (zoo.SqueezeExcite, zoo.images, {"a", "r", "e"}),
    "upsampling": (zoo.Upsampling, zoo.images, {"a", "t"}),
    "tied": (zoo.Tied, lambda n: zoo.rows(n, 6), {"m"}),
    "padded": (zoo.Padded, zoo.images, {"a", "inner"}),
    "attention": (zoo.Attention, lambda n: zoo.rows(n, 5, 6), {"up"}),
    "many outputs": (zoo.ManyOutputs, lambda n: zoo.rows(n, 6), {"z_first"}),
    "group norm": (zoo.GroupNormed, zoo.images, {"a", "c"}),
    "branches": (zoo.Inception, lambda n: zoo.rows(n, 2, 20), {"a", "b", "c", "shortcut"}),
    "volumes": (zoo.Volumes, lambda n: zoo.rows(n, 2, 4, 4, 4), {"a", "up", "b"}),
}


def build(name: str) -> tuple[nn.Module, Callable[[int], Tensor], set[str]]:
    make, inputs, cuttable = ZOO[name]
    torch.manual_seed(0)
    return settled(make()), inputs, cuttable
