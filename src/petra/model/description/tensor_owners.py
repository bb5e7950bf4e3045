"""Which parameters and buffers of a model are one tensor, and how each lies in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.description.attribute_values import NotDescribable
from petra.model.tensor_slots import SLOTS, tensor_slots

KEPT = "kept"  # the fact that a tensor has the bits that it has in the original


def held_once(model: nn.Module) -> frozenset[int]:
    """Ids of the tensors that are in one place only."""
    count = Counter(id(slot.tensor) for slot in tensor_slots(model))
    return frozenset(key for key, places in count.items() if places == 1)


def unchanged(
    path: str, module: nn.Module, reference: nn.Module, once: frozenset[int]
) -> Iterator[str]:
    """Keys of the module's own tensors that have the bits, and the layout, of those of its
    `reference`, out of tensors that the original holds `once`.
    """
    for slot in SLOTS:
        before: dict[str, Tensor | None] = getattr(reference, slot)
        for name, tensor in getattr(module, slot).items():
            old = before.get(name)
            if tensor is not None and old is not None and id(old) in once and _same(tensor, old):
                yield f"{path}.{name}" if path else name


def _same(one: Tensor, other: Tensor) -> bool:
    facts = [(type(t), t.dtype, t.shape, t.stride(), t.device) for t in (one, other)]
    if facts[0] != facts[1] or one.is_meta:
        return False
    bits = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return torch.equal(*bits)


def distinct_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Distinct tensors by their first key, and the first key of every other key.

    Raises NotDescribable on overlaps.
    """
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for slot in tensor_slots(model):
        key, tensor = slot.key, slot.tensor
        if id(tensor) in first:
            aliases[key] = first[id(tensor)]
            continue
        if (
            type(tensor) not in (Tensor, nn.Parameter)
            or tensor.layout != torch.strided
            or tensor.is_meta
        ):
            raise NotDescribable(
                f"{key!r}: a {type(tensor).__name__} of layout {tensor.layout} on {tensor.device}"
            )
        first[id(tensor)] = key
        tensors[key] = tensor
    _refuse_overlaps(tensors)
    return tensors, aliases


def _refuse_overlaps(tensors: Mapping[str, Tensor]) -> None:
    spans = sorted((str(t.device), t.data_ptr(), t.data_ptr() + _extent(t) * t.element_size(), key)
                   for key, t in tensors.items() if t.numel())  # fmt: skip
    for (device, _, end, key), (next_device, start, _, next_key) in pairwise(spans):
        if device == next_device and start < end:
            raise NotDescribable(
                f"{key!r} and {next_key!r} are different tensors on the same memory"
            )


def _extent(tensor: Tensor) -> int:
    """Elements from the first to the last in memory."""
    return 1 + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )


def tensor_facts(key: str, tensor: Tensor, *, kept: bool = False) -> dict[str, Any]:
    """What a parameter or buffer is besides its numbers; its layout changes last bits. `kept`:
    whether its numbers are the original's.
    """
    if tensor.grad_fn is not None or (
        tensor.requires_grad and not isinstance(tensor, nn.Parameter)
    ):
        raise NotDescribable(f"{key!r}: a buffer that takes part in differentiation")
    facts: dict[str, Any] = {KEPT: True} if kept else {}
    if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
        facts["frozen"] = True
    dense = _extent(tensor) == tensor.numel()  # expanded and sliced tensors come back contiguous
    if dense and tensor.stride() != torch.empty(tensor.shape, device="meta").stride():
        facts["stride"] = list(tensor.stride())
    if tensor.device.type != "cpu":
        facts["device"] = str(tensor.device)
    return facts


def laid_out(value: Tensor, facts: Mapping[str, Any]) -> Tensor:
    """A fresh copy in the recorded memory layout, on the recorded device."""
    stride = facts.get("stride") or torch.empty(value.shape, device="meta").stride()
    return torch.empty_strided(
        value.shape, stride, dtype=value.dtype, device=facts.get("device", "cpu")
    ).copy_(value)
