"""The networks of the GPU check, with random weights, and the pipelines that they go through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petra.core.pipeline import Pipeline, StageSpec


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        changes = stride > 1 or inputs != outputs
        shortcut = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential(*shortcut) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50(classes: int = 1000) -> nn.Module:
    stem = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    blocks, inputs = [], 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(depth):
            blocks.append(Bottleneck(inputs, width, stride if i == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(
        *stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)
    )


def bert() -> nn.Module:
    """BERT-base from its configuration; needs the package transformers."""
    from transformers import BertConfig, BertModel

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = BertModel(
                BertConfig(attn_implementation="sdpa"), add_pooling_layer=False
            )

        def forward(self, ids: Tensor) -> Tensor:
            hidden: Tensor = self.encoder(ids).last_hidden_state
            return hidden.mean(1)

    return Pooled()


@dataclass(frozen=True)
class Network:
    """A model to build, the batch it is timed with, and the pipelines it goes through."""

    build: Callable[[], nn.Module]
    batch: Tensor
    pipelines: tuple[str, ...]


PIPELINES: Mapping[str, Pipeline] = {
    "fp32": Pipeline(),
    "fp16": Pipeline((StageSpec("quantize.half", {"dtype": "fp16"}),)),
    "bf16": Pipeline((StageSpec("quantize.half"),)),
    "int8 rows": Pipeline((StageSpec("quantize.half", {"linear": "int8"}),)),
    "float8 rows": Pipeline((StageSpec("quantize.half", {"linear": "float8"}),)),
    "2:4, fp16": Pipeline(
        (
            StageSpec("prune.unstructured", {"pattern": "two_of_four"}),
            StageSpec("quantize.half", {"dtype": "fp16"}),
        )
    ),
}


def networks() -> dict[str, Network]:
    images = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(0, 30000, (8, 128), generator=torch.Generator().manual_seed(2))
    return {
        "BERT-base": Network(bert, ids, tuple(PIPELINES)),
        # Its only linear layer is the last, of a size that 8-bit kernels do not take.
        "ResNet-50": Network(resnet50, images, ("fp32", "fp16", "bf16")),
    }
