"""Networks with what quantizers meet: residuals, gates, batch norms without convolutions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from torch import Tensor, nn

MOVES = {
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Slice",
    "Pad",
    "Concat",
    "Clip",
    "MaxPool",
    "NhwcMaxPool",
}


INTEGER = {
    "QLinearConv",
    "QLinearAdd",
    "QLinearMul",
    "QGemm",
    "QLinearGlobalAveragePool",
    "QLinearAveragePool",
} | MOVES


NOTHING: frozenset[str] = frozenset()


class DigitsNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
        )
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


def run_onnx(path: Path, x: Tensor) -> tuple[np.ndarray, Counter[str]]:
    """Outputs, and the operators ONNX Runtime really executes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    executed = Counter(
        node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node
    )
    return session.run(None, {"input": x.numpy()})[0], executed
