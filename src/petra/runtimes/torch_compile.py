"""`torch.compile`: the same safe ``.pt2`` program as eager PyTorch's, compiled to native code where
it is loaded.

What ships is the program, not what was compiled from it: a compiled library is code, and opening
one that somebody else made would run theirs. `petra.runtimes.torch_ahead` makes such a library of
one's own.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from petra.core.errors import ExportError
from petra.core.profile import Profile
from petra.runtimes.base import Arrays, LoadedModel
from petra.runtimes.torch_eager import TorchEager
from petra.runtimes.torch_program import LoadedProgram

if TYPE_CHECKING:
    from torch import Tensor, nn

    from petra.core.interface import Interface
    from petra.tasks.inputs import Inputs

BATCH_SIZES = 32
"""Programs that PyTorch may compile of one model, one for every batch size at worst; later ones
would run eagerly.
"""


class TorchCompile(TorchEager):
    """TorchInductor, weights as constants. Needs a C++ compiler where the model runs.

    On a CPU, static int8 models run in oneDNN's integer kernels; on a GPU, Triton's kernels are
    replayed as CUDA graphs. It compiles on the first run with a batch of one, and again for larger
    ones, for seconds to minutes: timing leaves that out, peak memory does not.
    """

    name: ClassVar[str] = "torch.compile"

    def export(
        self, model: nn.Module, example: Inputs, path: Path, interface: Interface | None = None
    ) -> list[Path]:
        lengths = [s.name for s in interface.inputs if set(s.free) - {s.batch}] if interface else []
        if lengths and (recurrent := recurrent_layer(model)):
            raise ExportError(
                f"torch.compile writes {recurrent} out step by step, one program for every length"
                f" of {', '.join(lengths)}",
                hint="the runtimes torch, onnxruntime and openvino have it whole",
            )
        return super().export(model, example, path, interface)

    def load(self, path: Path) -> LoadedModel:
        self.require()
        target = self.target
        return LoadedProgram(
            path, threads=target.threads, device=target.device, prepare=self._compiled
        )

    def profile(self, path: Path, inputs: Arrays, calls: int) -> Profile:
        from torch._inductor import config

        with config.patch({"cpp.enable_kernel_profile": True}):  # its own kernels have names then
            return super().profile(path, inputs, calls)

    def _compiled(self, module: nn.Module) -> Callable[..., object]:
        import torch
        from torch._inductor import config

        on_cpu = self.target.device == "cpu"
        # Threads to compile with are enough: worker processes would still be starting while
        # something is timed.
        settings = {"freezing": True, "compile_threads": 1} if on_cpu else {}
        torch._dynamo.config.recompile_limit = BATCH_SIZES
        # On a GPU, CUDA graphs: one per batch size, so that small batches do not wait for kernels
        # to be launched.
        mode = None if on_cpu else "reduce-overhead"
        compiled = torch.compile(module, mode=mode)
        known: set[int] = set()

        def call(*args: Tensor, **kwargs: Tensor) -> object:
            nonlocal compiled
            batch = next(iter((*args, *kwargs.values()))).shape[0]
            if batch in known:
                return compiled(*args, **kwargs)
            with (
                config.patch(settings),
                warnings.catch_warnings(),
            ):
                # It may compile; options= would not reach Dynamo.
                warnings.simplefilter("ignore")
                try:
                    result = compiled(*args, **kwargs)
                except AssertionError:
                    # With a free batch size, TorchInductor may lay tensors out otherwise than it
                    # reckons with, and its own checks notice. Then there is one program for every
                    # batch size.
                    compiled = torch.compile(module, mode=mode, dynamic=False)
                    known.clear()
                    result = compiled(*args, **kwargs)
            known.add(batch)
            return result

        return call

    def lacks(self) -> str:
        return super().lacks() or (
            "" if cpp_compiler() else f"no C++ compiler ({_wanted()}), which CXX may name"
        )


def recurrent_layer(model: nn.Module) -> str:
    """The first recurrent layer or operator of a model or traced graph, '' where it has none."""
    from torch import fx, nn

    from petra.model.aten.macs import RECURRENT
    from petra.model.layers.stored_recurrent import StoredRecurrent

    for path, module in model.named_modules():
        if isinstance(module, nn.RNNBase | StoredRecurrent):
            return path or type(module).__name__
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            if str(node.target).startswith(RECURRENT):
                return str(node.target)
    return ""


def _wanted() -> str:
    """The compiler that PyTorch looks for."""
    return os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")


def cpp_compiler() -> str:
    """Path of the C++ compiler that PyTorch would use, '' when there is none."""
    return shutil.which(_wanted()) or ""
