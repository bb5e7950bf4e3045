"""Types and ranges of the codes that a graph is quantized to, and how their scales are found."""

from __future__ import annotations

import torch
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.observer import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from petra.core.kernels import Kernels
from petra.methods.quantize.observers import OBSERVERS

# Scales are bounded below so that the int32 bias codes, bias / (activation scale * weight scale),
# cannot overflow behind a dead channel.
_ACTIVATION_EPS, _WEIGHT_EPS = 2.0**-14, 2.0**-16


WHILE_TRAINING = {"average": MovingAverageMinMaxObserver, "extremes": MinMaxObserver}
"""How the range of an activation follows the data while weights change: by moving averages of the
extremes, which forget, or by the extremes themselves, within which everything stays.
"""


def code_types(
    kernels: Kernels, observer: str, weight_max: int, *, training: bool
) -> tuple[QuantizationSpec, QuantizationSpec]:
    """Of activations and of weights. See `DeploymentQuantizer` for the arguments.

    Raises ValueError for an unknown observer and a weight code that int8 does not hold.
    """
    allowed = WHILE_TRAINING if training else OBSERVERS
    if observer not in allowed:
        raise ValueError(f"observer {observer!r} is unknown, allowed: {', '.join(allowed)}")
    if not 1 <= weight_max <= 127:
        raise ValueError(f"weight_max {weight_max} is out of range, allowed: 1 to 127")
    if training:
        # Weight ranges are those of the present weights: an average of 1.0 remembers nothing.
        activation = FakeQuantize.with_args(observer=WHILE_TRAINING[observer], eps=_ACTIVATION_EPS)
        weight = FakeQuantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver,
            averaging_constant=1.0,
            eps=_WEIGHT_EPS,
        )
    else:
        activation = OBSERVERS[observer].with_args(eps=_ACTIVATION_EPS)
        weight = PerChannelMinMaxObserver.with_args(eps=_WEIGHT_EPS)
    low, high = kernels.activations
    codes = torch.int8 if low < 0 else torch.uint8
    return (
        QuantizationSpec(codes, activation, low, high, torch.per_tensor_affine),
        QuantizationSpec(
            torch.int8, weight, -weight_max, weight_max, torch.per_channel_symmetric, ch_axis=0
        ),
    )
