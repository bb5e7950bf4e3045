"""Where the windows of convolutions and poolings lie, and poolings.

ONNX pads the beginning and the end of an axis apart, or as much as leaves the size a file of
TensorFlow's expects (`auto_pad`); PyTorch pads both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.model.imported.elementwise import Attributes, Run
from petra.model.imported.values import Unreadable

Pads = tuple[tuple[int, int], ...]
"""Before and behind, for every axis of the window."""

_Pool = Mapping[int, Callable[..., Tensor]]
_MAX: _Pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE: _Pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def window(attributes: Attributes, rank: int) -> tuple[list[int], list[int], list[int]]:
    """Sizes, strides and dilations of a window over `rank` axes."""
    size = attributes["kernel_shape"]
    ones = [1] * rank
    return size, attributes.get("strides") or ones, attributes.get("dilations") or ones


def stated_pads(attributes: Attributes, rank: int) -> Pads | None:
    """The padding, None where it depends on the input's size."""
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        listed = attributes.get("pads") or [0] * 2 * rank
        return tuple(zip(listed[:rank], listed[rank:], strict=True))
    if auto == "VALID":
        return ((0, 0),) * rank
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Unreadable(f"auto_pad {auto!r}")
    return None


def pads_for(attributes: Attributes, sizes: Sequence[int]) -> Pads:
    """The padding of an input with these sizes along the window's axes."""
    rank = len(sizes)
    stated = stated_pads(attributes, rank)
    if stated is not None:
        return stated
    found = []
    for size, width, stride, dilation in zip(sizes, *window(attributes, rank), strict=True):
        total = max((-(-size // stride) - 1) * stride + dilation * (width - 1) + 1 - size, 0)
        less = total // 2
        upper = attributes["auto_pad"] == "SAME_UPPER"
        found.append((less, total - less) if upper else (total - less, less))
    return tuple(found)


def padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """With so many values more before and behind every axis but the first two."""
    listed = [p for both in reversed(pads) for p in both]
    return functional.pad(x, listed, value=value) if any(listed) else x


class SamePadding(nn.Module):
    """Pads as `auto_pad` says, by the size of what comes."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        super().__init__()
        self.attributes = dict(attributes)

    def forward(self, x: Tensor) -> Tensor:
        return padded(x, pads_for(self.attributes, x.shape[2:]))


def even(pads: Pads) -> bool:
    return all(before == behind for before, behind in pads)


def _max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    rank = x.ndim - 2
    size, stride, dilation = window(attributes, rank)
    pads, ceil = pads_for(attributes, x.shape[2:]), bool(attributes.get("ceil_mode", 0))
    if attributes.get("storage_order", 0) or rank not in _MAX:
        raise Unreadable("pooling in column order, or over more than three axes")
    if even(pads) and all(2 * p <= k for (p, _), k in zip(pads, size, strict=True)):
        before = [p for p, _ in pads]
    else:
        x, before = padded(x, pads, -torch.inf), [0] * rank
    return _MAX[rank](x, size, stride, before, dilation, ceil)


def _average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    rank = x.ndim - 2
    size, stride, dilation = window(attributes, rank)
    pads, ceil = pads_for(attributes, x.shape[2:]), bool(attributes.get("ceil_mode", 0))
    counted = bool(attributes.get("count_include_pad", 0))
    if rank not in _AVERAGE or any(d != 1 for d in dilation):
        raise Unreadable("average pooling that is dilated, or over more than three axes")
    if even(pads) and all(2 * p <= k for (p, _), k in zip(pads, size, strict=True)):
        return _AVERAGE[rank](x, size, stride, [p for p, _ in pads], ceil, counted)
    found = _AVERAGE[rank](padded(x, pads), size, stride, 0, ceil)
    if counted:
        return found
    share = padded(torch.ones_like(x[:1, :1]), pads)
    return found / _AVERAGE[rank](share, size, stride, 0, ceil)


POOLING: Mapping[str, Run] = {"MaxPool": _max_pool, "AveragePool": _average_pool}
