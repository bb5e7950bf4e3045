"""Counting multiply-accumulates by operator, also of those that torch's counter passes over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula
from torch.utils.module_tracker import ModuleTracker

import petra.model.layers.quantized  # noqa: F401  (has formulas of its own)
from petra.model.surgery import aliases_of, evaluating

aten = torch.ops.aten


def attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    """Two products of every query with every key.

    Shapes (batch, heads, length, width) come in place of tensors.
    """
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def recurrent(
    x: Sequence[int], w_input: Sequence[int], w_hidden: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    """Both weights once for every step of every item. x: (length, batch, in)."""
    return 2 * math.prod(x[:2]) * (math.prod(w_input) + math.prod(w_hidden))


for operator, formula in (
    (aten._scaled_dot_product_flash_attention_for_cpu, attention),
    (aten.mkldnn_rnn_layer, recurrent),
):
    if operator not in flop_registry:
        register_flop_formula(operator)(formula)


BATCHED_PRODUCTS = ("aten.bmm", "aten.baddbmm", "aten._scaled_dot_product")
"""Beginnings of names of operators that multiply batches of matrices, as attention does."""


def macs_by_module(
    model: nn.Module, forward: Callable[[nn.Module], object], *, operators: tuple[str, ...] = ("",)
) -> dict[str, int]:
    """Multiply-accumulates of `forward(model)`, half of the FLOPs, by module path; '' has all.

    Convolutions, matrix products, attention and recurrences count, as far as their names begin with
    one of `operators`. Paths without any may be missing. Cost: one pass.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _ForwardTracker()
    with torch.no_grad(), _unfused(), counter:
        forward(model)
    root = f"{type(model).__name__}."
    counts = {
        name: (
            int(sum(n for operator, n in flops.items() if str(operator).startswith(operators))) // 2
        )
        for name, flops in counter.get_flop_counts().items()
    }
    inside = {
        name.removeprefix(root): macs for name, macs in counts.items() if name.startswith(root)
    }
    return inside | {"": counts.get("Global", 0)}


def own_macs(
    model: nn.Module, forward: Callable[[nn.Module], object], layers: Mapping[str, nn.Module]
) -> tuple[dict[str, int], int]:
    """Multiply-accumulates that each of `layers` does itself, in all places where it is, and those
    of the whole model.

    Not counted as the layer's own are those of layers inside it, nor what attention does besides
    multiplying weights. Cost: two passes.
    """
    with evaluating(model):
        macs = macs_by_module(model, forward)
        products = macs_by_module(model, forward, operators=BATCHED_PRODUCTS)
    aliases = aliases_of(model)
    owner = {alias: path for path in layers for alias in aliases[path]}
    own = dict.fromkeys(layers, 0)
    for alias, path in owner.items():
        attends = isinstance(layers[path], nn.MultiheadAttention)
        own[path] += macs.get(alias, 0) - (products.get(alias, 0) if attends else 0)
        parents = (alias.rsplit(".", n)[0] for n in range(1, alias.count(".") + 1))
        above = next(
            (parent for parent in (*parents, "") if parent in owner and parent != alias), None
        )
        if above is not None:
            own[owner[above]] -= macs.get(alias, 0)
    return own, macs[""]


class _ForwardTracker(ModuleTracker):
    """Knows which modules are running. The one it replaces also prepares for a backward pass, which
    fails without gradients wherever a view of a parameter is an argument of a module (class tokens,
    learnt queries).
    """

    def _fw_pre_hook(self, mod: nn.Module, input: object) -> None:
        self.parents.add(self._get_mod_name(mod))  # type: ignore[no-untyped-call]

    def _fw_post_hook(self, mod: nn.Module, input: object, output: object) -> None:
        self.parents.discard(self._get_mod_name(mod))  # type: ignore[no-untyped-call]


@contextmanager
def _unfused() -> Iterator[None]:
    """Keep torch's transformer layers from calling one operator that cannot be counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
