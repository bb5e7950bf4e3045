"""Prefix tuning: keys and values before those of the tokens, in every attention (Li & Liang 2021).

The attention of Hugging Face's models is a function that their code looks up in a registry
(``transformers.AttentionInterface``) by the name in the configuration. While an attention with a
prefix runs, the name is that of ours, which puts the prefix before keys and values, opens mask and
position bias for it, and calls the function that the model has. Masks are made before that, by the
model's own name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from petra.model.layers.adapters import Around, start

KNOWN = ("eager", "sdpa")
"""Attention functions that take masks of any kind."""

_NAME = "petra_prefix"
_EMBEDDED = 512  # width of the reparameterisation, as in Li & Liang's first experiments

Attention = Callable[..., tuple[Tensor, Tensor | None]]
_RUNNING: ContextVar[tuple[Prefix | LearningPrefix, str]] = ContextVar("_RUNNING")


def attention_of(module: nn.Module) -> str:
    """The name of the attention function that a module of Hugging Face's looks up; '' of others."""
    name: object = getattr(getattr(module, "config", None), "_attn_implementation", None)
    return str(name or "")


class Prefix(nn.Module):
    """Keys and values `states` (2, length, heads, size), the heads being those of keys."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = nn.Parameter(states)

    def now(self) -> Tensor:
        return self.states


class LearningPrefix(nn.Module):
    """A prefix while it is trained: V tanh(W e) of an embedding e of every position, which is
    steadier than training keys and values themselves (Li & Liang 2021, section 4.3). `settled`
    computes it once and for all.
    """

    def __init__(self, length: int, heads: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = (length, 2, heads, size)
        self.embedding = nn.Parameter(torch.randn(length, _EMBEDDED, generator=generator))
        self.inner = nn.Linear(_EMBEDDED, _EMBEDDED)
        self.outer = nn.Linear(_EMBEDDED, 2 * heads * size)
        for layer in (self.inner, self.outer):
            start(layer.weight, generator)
            nn.init.zeros_(layer.bias)

    def now(self) -> Tensor:
        states: Tensor = self.outer(torch.tanh(self.inner(self.embedding)))
        return states.view(self.shape).transpose(0, 1)

    def settled(self) -> Prefix:
        with torch.no_grad():
            return Prefix(self.now().contiguous())


class Prefixed(Around):
    """An attention of a Hugging Face model, with a prefix. It cannot be folded in: there is no
    token whose key and value it would be.
    """

    kind: ClassVar[str] = "prefix"
    insert: Prefix | LearningPrefix

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _looked_up(self.layer, self.insert):
            return self.layer(*args, **kwargs)

    def settle(self) -> None:
        if isinstance(self.insert, LearningPrefix):
            self.insert = self.insert.settled()


@contextmanager
def _looked_up(layer: Any, prefix: Prefix | LearningPrefix) -> Iterator[None]:
    """Inside, the attention function that `layer` finds is ours, with this prefix."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, attend)
    config = layer.config
    own = config._attn_implementation
    token = _RUNNING.set((prefix, own))
    # Not by the property, which would set those of configurations inside this one.
    config._attn_implementation_internal = _NAME
    try:
        yield
    finally:
        config._attn_implementation_internal = own
        _RUNNING.reset(token)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention over prefix and tokens. query (n, heads, m, size), key and value (n, key heads, k,
    size); mask and bias (n or 1, heads or 1, m, k), or None.
    """
    prefix, own = _RUNNING.get()
    mask = attention_mask
    if mask is None and own != "eager" and query.shape[2] > 1:
        causal = kwargs.get("is_causal")
        if causal if causal is not None else getattr(module, "is_causal", True):
            mask = _lower(query, key)  # of a prefix that all may see, no flag tells
    # (2, length, heads, size) -> (2, n, heads, length, size), the same for every item
    states = prefix.now().transpose(1, 2).unsqueeze(1).expand(-1, key.shape[0], -1, -1, -1)
    length = states.shape[3]
    biased = {} if position_bias is None else {"position_bias": _opened(position_bias, length)}
    return _function(module, own)(
        module,
        query,
        torch.cat([states[0].to(key), key], 2),
        torch.cat([states[1].to(value), value], 2),
        None if mask is None else _opened(mask, length),
        **biased,
        **kwargs,
    )


def _lower(query: Tensor, key: Tensor) -> Tensor:
    """The causal mask (1, 1, m, k): true where a query may look."""
    rows, columns = (torch.arange(t.shape[2], device=t.device) for t in (query, key))
    return (rows.unsqueeze(1) >= columns.unsqueeze(0))[None, None]


def _opened(mask: Tensor, length: int) -> Tensor:
    """With `length` more columns in front, which all may look at."""
    shape = (*mask.shape[:-1], length)
    free = mask.new_ones(shape) if mask.dtype == torch.bool else mask.new_zeros(shape)
    return torch.cat([free, mask], -1)


def _function(module: nn.Module, name: str) -> Attention:
    """The model's own attention function: eager ones stand in the file of the model."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found: Any = None
    if name == "eager":
        for cls in type(module).__mro__:
            code = sys.modules.get(cls.__module__)
            found = found or getattr(code, "eager_attention_forward", None)
    result: Attention = found or ALL_ATTENTION_FUNCTIONS[name]
    return result
