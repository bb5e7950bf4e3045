"""Eager PyTorch as a place to deploy to: a ``.pt2`` program without the model's class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from petra.core.kernels import Kernels
from petra.core.profile import Profile
from petra.runtimes.base import Arrays, InputSpec, LoadedModel, Runtime, zeros
from petra.runtimes.torch_program import OPERATORS, SUFFIX, LoadedProgram, export_program

if TYPE_CHECKING:
    from torch import nn

    from petra.core.interface import Interface
    from petra.tasks.inputs import Inputs


class TorchEager(Runtime):
    """PyTorch itself as the deployment runtime, on the CPU and on an NVIDIA GPU.

    Int8 graphs run on the CPU too, but simulated: slower, not faster. On a GPU, linear layers of
    8-bit rows run in torchao's kernels, those in 16 bits with 2:4 zeros in sparse ones
    (`petra.runtimes.torch_kernels`). The file is written on the CPU, so any machine can make it.
    """

    name: ClassVar[str] = "torch"
    suffix: ClassVar[str] = SUFFIX
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    libraries: ClassVar[tuple[str, ...]] = ("torch", "torchao")

    @property
    def kernels(self) -> Kernels:
        on_cpu = self.target.device == "cpu"
        return Kernels(("bf16", "int8") if on_cpu else ("bf16", "fp16", "int8", "float8"))

    def export(
        self, model: nn.Module, example: Inputs, path: Path, interface: Interface | None = None
    ) -> list[Path]:
        return [export_program(model, example, path, interface)]

    def load(self, path: Path) -> LoadedModel:
        self.require()
        return LoadedProgram(path, threads=self.target.threads, device=self.target.device)

    def profile(self, path: Path, inputs: Arrays, calls: int) -> Profile:
        from petra.runtimes.torch_profile import profile_torch

        session = self.load(path)
        assert isinstance(session, LoadedProgram)
        return profile_torch(session, inputs, calls, device=self.target.device)

    def snippet(self, file: str, inputs: Sequence[InputSpec]) -> str:
        names = [spec.name for spec in inputs]
        keyed = names != ["input"] and not all(name.startswith("input_") for name in names)
        threads = f"torch.set_num_threads({self.target.threads})  # as it was measured"
        return "\n".join(
            [
                "import numpy as np",
                "import torch",
                f"import {', '.join(OPERATORS)}  # operators of petra's files",
                *([threads] if self.target.device == "cpu" else []),
                f"model = torch.export.load({json.dumps(file)}).module()",
                "inputs = {",
                *zeros(inputs),
                "}  # the first dimension is the batch, of any size",
                "tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}",
                "outputs = model(**tensors)" if keyed else "outputs = model(*tensors.values())",
            ]
        )

    def lacks(self) -> str:
        return "" if self.target.device == "cpu" else lacks_cuda()


def lacks_cuda() -> str:
    """Why there is no GPU to run on, '' when there is one."""
    import torch

    if torch.cuda.is_available():
        return ""
    return "no CUDA GPU" if torch.version.cuda else "this PyTorch is built without CUDA"
