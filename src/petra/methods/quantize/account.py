"""The account of a quantization: how much of a model is really quantized, why the rest is not, what it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, call, prediction

PRODUCTS = "products of two activations, as in attention: there is no weight to quantize"
DECODED = "weights are codes, decoded for float arithmetic"


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer with weights.

    macs: its multiply-accumulates. weights: elements of its weights by a key that layers which share one have in
    common. reason: why they are in float; "" when they are codes. in_8_bits: whether it computes with codes, too.
    """

    path: str
    macs: int
    weights: Mapping[str, int] | Mapping[int, int]
    reason: str = ""
    in_8_bits: bool = False


@dataclass(frozen=True)
class Shares:
    """How much of a model is quantized; everything lies between 0 and 1.

    layers: those whose weights are codes. macs: multiply-accumulates of a forward pass that they do. macs_8_bit: those
    done with 8-bit codes. weights: parameter elements that are codes. bytes: those of the stored parameters that codes
    take. float_macs: multiply-accumulates done in float, by reason; with `macs_8_bit` they make up 1.
    """

    layers: float
    macs: float
    macs_8_bit: float
    weights: float
    bytes: float
    float_macs: dict[str, float]

    def as_details(self) -> dict[str, object]:
        """For a stage's trace: the same keys whichever stage it is."""
        shares = {f"share_of_{key}": round(value, 4) for key, value in vars(self).items() if key != "float_macs"}
        return shares | {"float_macs": {reason: round(share, 4) for reason, share in self.float_macs.items()}}


def account(calls: Sequence[LayerCall], *, macs: int, elements: int, code_bytes: int, all_bytes: int) -> Shares:
    """`calls` are those of all layers with weights; `macs` and `elements` what the whole model does and holds.

    code_bytes, all_bytes: what the codes and what all parameters take in store. Multiply-accumulates that belong to no
    layer are those of products of activations.
    """
    layers = {(one.path, *one.weights) for one in calls}
    quantized = {(one.path, *one.weights) for one in calls if not one.reason}
    codes = {key: n for one in calls if not one.reason for key, n in one.weights.items()}
    floats: Counter[str] = Counter()
    for one in calls:
        if not one.in_8_bits:
            floats[one.reason or DECODED] += one.macs
    floats[PRODUCTS] += max(0, macs - sum(one.macs for one in calls))
    return Shares(
        layers=len(quantized) / max(1, len(layers)),
        macs=sum(one.macs for one in calls if not one.reason) / max(1, macs),
        macs_8_bit=sum(one.macs for one in calls if one.in_8_bits) / max(1, macs),
        weights=sum(codes.values()) / max(1, elements),
        bytes=code_bytes / max(1, all_bytes),
        float_macs={reason: n / max(1, macs) for reason, n in floats.items() if n},
    )


def predictions(model: nn.Module, example: Inputs) -> Tensor:
    """What the model says of the example, in float32. Cost: one forward pass."""
    with evaluating(model), torch.no_grad():
        return prediction(call(model, example)).float()


def output_change(before: Tensor, after: Tensor) -> float:
    """Root mean square difference of predictions over the spread of those before."""
    return round(float((after - before).square().mean().sqrt() / before.std().clamp(min=1e-12)), 6)
