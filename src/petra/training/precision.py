"""bf16 autocast and channels-last, only where the hardware gains from them.

The choice is by capability, not by timing, so that it is the same in every run on one machine: bf16
arithmetic without hardware support (AVX-512 BF16, AMX, or CUDA) is about ten times slower than fp32
on a CPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Precision:
    """How the training loop arranges arithmetic and memory on `device`."""

    device: str
    bf16: bool
    channels_last: bool

    @property
    def name(self) -> str:
        return ("bf16" if self.bf16 else "fp32") + (" channels-last" if self.channels_last else "")

    def prepare(self, model: nn.Module) -> None:
        """Lay the model's 4-D weights out in place."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def arrange(self, tensor: Tensor) -> Tensor:
        """Lay a batch out like the model: 4-D tensors channels-last."""
        if self.channels_last and tensor.ndim == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def autocast(self) -> AbstractContextManager[object]:
        return (
            torch.autocast(torch.device(self.device).type, torch.bfloat16)
            if self.bf16
            else nullcontext()
        )


def has_fast_bf16(device: str) -> bool:
    """Whether matrix products in bf16 run in hardware."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(model: nn.Module, device: str) -> Precision:
    """For `model`: channels-last when it has 2-D convolutions, bf16 where it is fast."""
    convs = any(isinstance(m, nn.Conv2d) for m in model.modules())
    return Precision(device, bf16=has_fast_bf16(device), channels_last=convs)
