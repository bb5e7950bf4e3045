"""Eager PyTorch as a place to deploy to, on the CPU and on a GPU: a ``.pt2`` program without the
model's class.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from petra.runtimes.base import Runtime, Session
from petra.runtimes.torch_program import SUFFIX, ProgramSession, export_program

if TYPE_CHECKING:
    from torch import nn

    from petra.core.interface import Interface
    from petra.tasks.inputs import Inputs


ON_GPU = ("bf16", "fp16", "int8", "float8")


class TorchEager(Runtime):
    """PyTorch itself as the deployment runtime. Int8 graphs run here too, but simulated: slower,
    not faster.
    """

    name: ClassVar[str] = "torch"
    suffix: ClassVar[str] = SUFFIX
    device: ClassVar[str] = "cpu"
    precisions: ClassVar[tuple[str, ...]] = ("bf16", "int8")

    def export(
        self, model: nn.Module, example: Inputs, path: Path, interface: Interface | None = None
    ) -> list[Path]:
        return [export_program(model, example, path, interface)]

    def load(self, path: Path, *, threads: int) -> Session:
        self.require()
        return ProgramSession(path, threads=threads, device=self.device)

    def version(self) -> str:
        return metadata.version("torch")

    def lacks(self) -> str:
        return lacks_cuda() if self.device.startswith("cuda") else ""


class TorchCuda(TorchEager):
    """The same file on an NVIDIA GPU. It is written on the CPU, so any machine can make it.

    Linear layers of 8-bit rows run in torchao's kernels, those in 16 bits with 2:4 zeros in sparse
    ones (`petra.runtimes.torch_kernels`).
    """

    name: ClassVar[str] = "torch.cuda"
    device: ClassVar[str] = "cuda"
    precisions: ClassVar[tuple[str, ...]] = ON_GPU


def lacks_cuda() -> str:
    """Why there is no GPU to run on, '' when there is one."""
    import torch

    if torch.cuda.is_available():
        return ""
    return "no CUDA GPU" if torch.version.cuda else "this PyTorch is built without CUDA"
