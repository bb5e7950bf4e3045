"""How much of a model is really quantized, why the rest is not, and what it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petra.methods.effect import check_effect, named
from petra.model.flops import own_macs
from petra.model.layers.weight_only import WeightOnlyRecurrent
from petra.model.outside import share_with_parameters
from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, call, comparable, prediction

PRODUCTS = "products of two activations, as in attention: there is no weight to quantize"
WITH_PARAMETERS = "products with parameters that are no layer's one matrix"
EXCLUDED, KEPT, TO_STAY = "excluded", "kept in float, number ", "the weights of "
ON_REQUEST = (EXCLUDED, KEPT, TO_STAY)
"""How reasons begin that are what somebody asked for."""
DECODED = "weights are codes, decoded for float arithmetic"


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer with weights.

    macs: its multiply-accumulates. weights: elements of its weights by a key that layers which
    share one have in common. reason: why they are in float; "" when they are codes. in_8_bits:
    whether it computes with codes, too.
    """

    path: str
    macs: int
    weights: Mapping[str, int] | Mapping[int, int]
    reason: str = ""
    in_8_bits: bool = False


@dataclass(frozen=True)
class Shares:
    """How much of a model is quantized; everything lies between 0 and 1.

    layers: those whose weights are codes. macs: multiply-accumulates of a forward pass that they
    do. macs_8_bit: those done with 8-bit codes. weights: parameter elements that are codes. bytes:
    those of the stored parameters that codes take. float_macs: multiply-accumulates done in float,
    by reason; with `macs_8_bit` they make up 1.
    """

    layers: float
    macs: float
    macs_8_bit: float
    weights: float
    bytes: float
    float_macs: dict[str, float]

    def as_details(self) -> dict[str, object]:
        """For a stage's trace: the same keys whichever stage it is."""
        shares = {
            f"share_of_{key}": round(value, 4)
            for key, value in vars(self).items()
            if key != "float_macs"
        }
        return shares | {
            "float_macs": {reason: round(share, 4) for reason, share in self.float_macs.items()}
        }


def measure_shares(
    calls: Sequence[LayerCall],
    others: Mapping[str, int],
    *,
    macs: int,
    elements: int,
    code_bytes: int,
    all_bytes: int,
) -> Shares:
    """`calls` are those of all weighted layers; `macs` and `elements` the whole model's.

    others: multiply-accumulates that belong to no layer, by what they are. code_bytes, all_bytes:
    what the codes and what all parameters take in store.
    """
    layers = {(one.path, *one.weights) for one in calls}
    quantized = {(one.path, *one.weights) for one in calls if not one.reason}
    codes = {key: n for one in calls if not one.reason for key, n in one.weights.items()}
    floats: Counter[str] = Counter()
    for one in calls:
        if not one.in_8_bits:
            floats[one.reason or DECODED] += one.macs
    floats.update(others)
    return Shares(
        layers=len(quantized) / max(1, len(layers)),
        macs=sum(one.macs for one in calls if not one.reason) / max(1, macs),
        macs_8_bit=sum(one.macs for one in calls if one.in_8_bits) / max(1, macs),
        weights=sum(codes.values()) / max(1, elements),
        bytes=code_bytes / max(1, all_bytes),
        float_macs={reason: n / max(1, macs) for reason, n in floats.items() if n},
    )


def check_macs(calls: Sequence[LayerCall], others: Mapping[str, int], macs: int) -> None:
    """Raise StageRefused when next to none of the multiply-accumulates that are asked for are 8-bit
    ones; not asked for are those of layers excluded, or kept in float for their sensitivity."""
    rest: Counter[str] = Counter(others)
    for one in calls:
        if not one.in_8_bits:
            rest[named(one.path, one.reason or DECODED)] += one.macs
    unasked = sum(one.macs for one in calls if one.reason.startswith(ON_REQUEST))
    check_effect(
        "quantizes",
        sum(one.macs for one in calls if one.in_8_bits) / max(1, macs),
        "multiply-accumulates",
        asked=1 - unasked / max(1, macs),
        rest={why: n / max(1, macs) for why, n in rest.items()},
    )


def check_kernels(model: nn.Module, example: Inputs) -> None:
    """Raise StageRefused when recurrent layers that compute in float, whether or not their weights
    are codes, do nearly all of the multiply-accumulates of `model`, as `check_macs` would. Costs a
    forward pass.
    """
    floats = (nn.RNNBase, WeightOnlyRecurrent)
    layers = {path: m for path, m in model.named_modules() if isinstance(m, floats)}
    if not layers:
        return
    macs, _, total = multiplications(model, example, layers)
    held = {path: n / max(1, total) for path, n in macs.items()}
    check_effect(
        "quantizes at most",
        1 - sum(held.values()),
        "multiply-accumulates",
        asked=1.0,
        rest={named(path, "recurrent layers have no kernel"): n for path, n in held.items()},
    )


def check_weights(calls: Sequence[LayerCall], elements: int, of: Mapping[str, int]) -> None:
    """As above, of weights that become codes. of: elements of every layer's weights, by path."""
    codes = {key: n for one in calls if not one.reason for key, n in one.weights.items()}
    unasked = sum(of[one.path] for one in calls if one.reason.startswith(ON_REQUEST))
    check_effect(
        "stores as codes",
        sum(codes.values()) / max(1, elements),
        "weights",
        asked=1 - unasked / max(1, elements),
        rest={
            named(one.path, one.reason): of[one.path] / max(1, elements)
            for one in calls
            if one.reason
        },
    )


def multiplications(
    model: nn.Module, example: Inputs, layers: Mapping[str, nn.Module]
) -> tuple[dict[str, int], dict[str, int], int]:
    """Multiply-accumulates of each of `layers`, of what belongs to none by what it is, and all.

    A module that holds others is no layer: what it does besides calling them may be anything.
    """
    plain = {
        path: layer
        for path, layer in layers.items()
        if not layer._modules or isinstance(layer, nn.MultiheadAttention)
    }
    macs, total = own_macs(model, lambda m: call(m, example), plain)
    rest = max(0, total - sum(macs.values()))
    share = (
        share_with_parameters(model, lambda m: call(m, example), plain.values()) if rest else 0.0
    )
    with_parameters = round(rest * share)
    others = {WITH_PARAMETERS: with_parameters, PRODUCTS: rest - with_parameters}
    return macs | {path: 0 for path in layers if path not in plain}, others, total


def predictions(model: nn.Module, example: Inputs) -> Tensor:
    """What the model says of the example, in float32. Cost: one forward pass."""
    with evaluating(model), torch.no_grad():
        return prediction(call(model, example)).float()


def output_change(before: Tensor, after: Tensor) -> float:
    """Root mean square difference of predictions over the spread of those before."""
    before, after = comparable(before), comparable(after)
    return round(float((after - before).square().mean().sqrt() / before.std().clamp(min=1e-12)), 6)
