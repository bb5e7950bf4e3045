"""What a runtime computes in other than float32: what quantizers are given, and what a search is
narrowed to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Clip = tuple[float | None, float | None]
"""Bounds of an activation that clips, None where it has none: ReLU is (0, None)."""


WEIGHT_MAX = 64
"""The largest weight code that is right on every CPU where runtimes multiply as most do. x86 CPUs
without VNNI add two u8 x s8 products in 16 bits, which saturates from 65 on (2 x 255 x 65 >
32,767): silently wrong there, right elsewhere. 127 halves the rounding error of the weights, on
CPUs known to have VNNI or Arm dot products. Measured on ResNet-20, CIFAR-10, without VNNI, float
91.7%: 64 keeps 91.6 to 92.1%, 127 falls to 90.8 to 91.0%, at the same speed.
"""


@dataclass(frozen=True)
class Kernels:
    """The arithmetic of a runtime besides float32's. The defaults are what most have: the integer
    kernels of graphs between quantize and dequantize operators.

    precisions: bf16 and fp16, and for linear layers int8 or float8, that models in half precision
    may be computed in. activations: lowest and highest code of static activations, which are affine
    with one scale for a tensor; from 0 they are unsigned. largest_weight: the largest weight code
    that is right on every CPU; weights are symmetric int8, with a scale per output channel.
    weight_bits: what weights can be stored in for float arithmetic. arithmetic: operators, by their
    name in ATen, that make new codes with a range of their own. same_range: further ones whose
    results must have the range of their input. clips: those that a layer's kernel ends with, None
    for all. float_results: whether a linear layer of codes can put out float32. dynamic: whether
    linear layers gain from activations that are quantized on the spot. recurrent: the recurrent
    layers, "LSTM" or "GRU", that there are such integer kernels for.
    """

    precisions: tuple[str, ...] = ()
    activations: tuple[int, int] = (0, 255)
    largest_weight: int = WEIGHT_MAX
    weight_bits: tuple[int, ...] = (16, 8, 4)
    arithmetic: frozenset[str] = frozenset({"add", "mul", "mean", "avg_pool1d", "avg_pool2d"})
    same_range: frozenset[str] = frozenset()
    clips: frozenset[Clip] | None = None
    float_results: bool = True
    dynamic: bool = True
    recurrent: frozenset[str] = frozenset()

    @property
    def choices(self) -> Mapping[str, tuple[str | int, ...]]:
        """Values that a parameter may take here, by the parameter's scope."""
        return {
            "precision": ("half", *self.precisions),
            "weight bits": self.weight_bits,
            "recurrent": ("float", "int8", *(["dynamic"] if self.recurrent else [])),
        }


USUAL = Kernels()
