"""A transformer, its task, and what dynamic quantization ships of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.runtimes.onnx_export import export_onnx
from petra.tasks.base import Task
from petra.tasks.classification import classification


class Encoder(nn.Module):
    """A language model with a table shared between its first and its last layer, as GPT-2 has, and
    a dict output.
    """

    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(90, 32), nn.Embedding(16, 32)
        self.qkv, self.out, self.norm = nn.Linear(32, 96), nn.Linear(32, 32), nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 64, bias=False), nn.Linear(64, 32)
        self.head = nn.Linear(32, 90, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        n, t = ids.shape
        x = self.embedding(ids) + self.positions.weight[:t]
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, 4, 8).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 32))
        x = x + self.down(F.gelu(self.up(x)))
        return {"logits": self.head(x).mean(1), "hidden": x}


def ids(n: int, t: int = 12, *, high: int = 90) -> Tensor:
    return torch.randint(0, high, (n, t), generator=torch.Generator().manual_seed(n))


def task_of(x: Tensor) -> Task:
    split = (x, torch.arange(len(x)) % 2)
    return classification(split, split, split)


def run(stage: DynamicQuantize, model: nn.Module, x: Tensor) -> tuple[nn.Module, StageTrace]:
    return stage.apply(model, Context(task=task_of(x), teacher=model, seed=0))


def session(path: Path, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def shipped(model: nn.Module, x: Tensor, path: Path) -> list[np.ndarray]:
    """Outputs of the exported file on `x`; it was traced with another batch size."""
    exported = export_onnx(model, x[:2], path)
    loaded = session(exported)
    return loaded.run(None, {loaded.get_inputs()[0].name: x.numpy()})


class TorchTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        self.body, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(32, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))
