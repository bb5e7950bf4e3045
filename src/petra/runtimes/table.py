"""The table of runtimes. A new runtime is one new file and one line here."""

from __future__ import annotations

from petra.core.registry import Registry
from petra.runtimes.base import Runtime

RUNTIMES: Registry[type[Runtime]] = Registry(
    "runtime",
    {
        "onnxruntime": "petra.runtimes.onnxruntime:OnnxRuntime",
        "torch": "petra.runtimes.torch_eager:TorchEager",
    },
)
