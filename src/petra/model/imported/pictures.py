"""ONNX's operators on pictures: sizes, and channels that become pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from petra.model.imported.elementwise import Attributes, Run
from petra.model.imported.values import Unreadable, Value, check_size, numbers, shape_of


def _depth_to_space(attributes: Attributes, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, b)
    x = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(attributes: Attributes, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = attributes["blocksize"]
    order = (0, 1, 3, 5, 2, 4) if attributes.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    x = x.reshape(n, c, h // b, b, w // b, b).permute(order)
    return x.reshape(n, c * b**2, h // b, w // b)


def _resize(attributes: Attributes, x: Tensor, *given: Value) -> Tensor:
    """As far as PyTorch has it. Inputs are (roi, scales, sizes), before opset 11 (scales,)."""
    inputs = [value for value in given if value is not None and shape_of(value) != (0,)]
    sizes = given[2] if len(given) > 2 else None
    scales = given[1] if len(given) > 1 else given[0] if given else None
    if attributes.get("axes") or not inputs:
        raise Unreadable("a resize of named axes, or to no size")
    have = list(x.shape)
    if sizes is not None:
        wanted, factors = numbers(sizes), None
        size: Any = wanted[2:]
    else:
        size, factors = None, numbers(scales)
        wanted = [math.floor(n * f) for n, f in zip(have[1:], factors[1:], strict=True)]
        wanted = [have[0], *wanted]
    if (factors and factors[:2] != [1, 1]) or wanted[1] != have[1]:
        raise Unreadable("a resize of items or channels")
    exact = not factors or all(n * f % 1 == 0 for n, f in zip(have[2:], factors[2:], strict=True))
    where = attributes.get("coordinate_transformation_mode", "half_pixel")
    single = where == "pytorch_half_pixel" and 1 in wanted[2:]
    if single or (where == "align_corners" and not exact):
        raise Unreadable(f"a resize from {have} to {wanted} with {where}")
    check_size(wanted)
    how = _interpolation(attributes, have, wanted)
    return functional.interpolate(x, size, factors and factors[2:], **how)


def _interpolation(
    attributes: Attributes, have: Sequence[Any], wanted: Sequence[Any]
) -> dict[str, Any]:
    mode = attributes.get("mode", "nearest")
    where = attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = attributes.get("nearest_mode", "round_prefer_floor")
    rank = len(have)
    if mode == "nearest":
        grows = all(b % a == 0 for a, b in zip(have[2:], wanted[2:], strict=True))
        if (where, rounding) == ("asymmetric", "floor") or (
            grows and where == "half_pixel" and rounding.startswith("round_prefer")
        ):
            return {"mode": "nearest"}
    elif where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        name = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}
        found = name.get(mode, {}).get(rank)
        usual = attributes.get("cubic_coeff_a", -0.75) == -0.75
        if found and (usual or mode != "cubic") and not attributes.get("antialias", 0):
            return {"mode": found, "align_corners": where == "align_corners"}
    raise Unreadable(f"a resize of the mode {mode!r} with {where} and {rounding}")


PICTURES: Mapping[str, Run] = {
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Resize": _resize,
}
