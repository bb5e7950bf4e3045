"""The table of runtimes. A new runtime is one new file and one line here."""

from __future__ import annotations

from petra.core.registry import Registry
from petra.runtimes.base import Runtime

# Of several that load one kind of file, the first is meant when none is named.
_TABLE = {
    "onnxruntime": "petra.runtimes.onnxruntime:OnnxRuntime",
    "openvino": "petra.runtimes.openvino:OpenVino",
    "torch": "petra.runtimes.torch_eager:TorchEager",
    "torch.compile": "petra.runtimes.torch_compile:TorchCompile",
    "torch.cuda": "petra.runtimes.torch_eager:TorchCuda",
    "torch.compile.cuda": "petra.runtimes.torch_compile:TorchCompileCuda",
}

RUNTIMES: Registry[type[Runtime]] = Registry("runtime", _TABLE)


def runtimes_by_suffix() -> dict[str, str]:
    """File name extension (with its dot) -> the runtime it stands for."""
    found: dict[str, str] = {}
    for name in dict.fromkeys([*_TABLE, *RUNTIMES.names()]):
        runtime = RUNTIMES.get(name)
        for suffix in (runtime.suffix, *runtime.reads):
            found.setdefault(suffix, name)
    return found
