"""Encoders of event sequences: each event has categories and numbers, each item as many events as
it has.

Both are called by name: an int64 (n, length) tensor for every category, `numeric` float (n, length,
numeric) where there are numbers, `mask` bool (n, length), true where there is an event, and
`static` float (n, static) where an item has facts of its own. Events come first and padding behind
them, as `petra.ragged` pads; at least one event each. What stands at padded positions, and how many
there are, changes nothing. Times go in as numbers, such as the gap to the event before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from petra.core.errors import ConfigError, DataError
from petra.networks.attention import SelfAttention, feed_forward

NUMERIC, MASK, STATIC = "numeric", "mask", "static"
WIDEST = 16  # of a category's embedding
LONGEST_WAVE = 10_000  # in events, of the positions' sines (Vaswani et al. 2017)


class EventEmbedding(nn.Module):
    """The embeddings of an event's categories and its numbers side by side: (n, length, width).

    `categories` are their sizes by name: codes lie in 0..size - 1, and 0 is padding. Each takes
    half as many numbers as it has codes, at most `WIDEST`.
    """

    def __init__(self, categories: Mapping[str, int], numeric: int) -> None:
        super().__init__()
        self.columns = (*categories, NUMERIC) if numeric else tuple(categories)
        if not self.columns:
            raise ConfigError(
                "categories: an event has no category and no number", hint="give at least one"
            )
        if taken := {NUMERIC, MASK, STATIC} & set(categories):
            raise ConfigError(
                f"categories: {min(taken)!r} is the name of another input", hint="rename it"
            )
        sizes = [(size, min(WIDEST, (size + 1) // 2)) for size in categories.values()]
        self.tables = nn.ModuleList(
            nn.Embedding(size, width, padding_idx=0) for size, width in sizes
        )
        self.width = sum(width for _, width in sizes) + numeric

    def forward(self, *columns: Tensor) -> Tensor:
        """Of `self.columns`, in their order."""
        parts = [table(codes) for table, codes in zip(self.tables, columns, strict=False)]
        return torch.cat([*parts, *columns[len(parts) :]], -1)


class EventHead(nn.Module):
    """One hidden layer over what is made of an item's events, (n, width), and its facts."""

    def __init__(self, width: int, static: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(width + static, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, outputs)

    def forward(self, *parts: Tensor) -> Tensor:
        x = torch.relu(self.hidden(torch.cat(parts, 1)))
        found: Tensor = self.out(self.dropout(x))
        return found


class EventGRU(nn.Module):
    """A GRU over embedded events, read at each item's last one (as E.T.-RNN, Babaev et al. 2019).

    Takes the inputs above, returns (n, outputs). For two categories of 10 and 20, two numbers and
    two outputs 20,476 parameters, and 15,552 multiply-accumulates for every event.
    """

    def __init__(
        self,
        categories: Mapping[str, int],
        numeric: int,
        outputs: int,
        *,
        static: int = 0,
        width: int = 64,
        layers: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.events = EventEmbedding(categories, numeric)
        self.facts = (STATIC,) if static else ()
        between = dropout if layers > 1 else 0.0
        self.gru = nn.GRU(self.events.width, width, layers, batch_first=True, dropout=between)
        self.head = EventHead(width, static, outputs, dropout)

    def forward(self, **inputs: Tensor) -> Tensor:
        events, mask, facts = _taken(inputs, self.events.columns, self.facts)
        states, _ = self.gru(self.events(*events))
        items = torch.arange(mask.shape[0], device=mask.device)
        last = states[items, mask.sum(1) - 1]  # later states have seen padding
        found: Tensor = self.head(last, *facts)
        return found


class EventLayer(nn.Module):
    """A transformer layer that normalises before each half (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.feed_forward = feed_forward(width, 4 * width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        found: Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
        return found


class EventTransformer(nn.Module):
    """A transformer encoder over embedded events, averaged over them (Vaswani et al. 2017).

    Positions are counted back from an item's last event, so that what is recent looks alike in
    items of any length. Takes the inputs above, returns (n, outputs). For two categories of 10 and
    20, two numbers and two outputs 105,788 parameters, and for every event 99,392
    multiply-accumulates and 256 for each other event of its item.
    """

    def __init__(
        self,
        categories: Mapping[str, int],
        numeric: int,
        outputs: int,
        *,
        static: int = 0,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % 2:
            raise ConfigError(f"width: {width} is odd", hint="half of it are sines, half cosines")
        self.events = EventEmbedding(categories, numeric)
        self.facts = (STATIC,) if static else ()
        self.project = nn.Linear(self.events.width, width)
        self.layers = nn.ModuleList(EventLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = EventHead(width, static, outputs, dropout)

    def forward(self, **inputs: Tensor) -> Tensor:
        events, mask, facts = _taken(inputs, self.events.columns, self.facts)
        x = self.project(self.events(*events))
        x = x + positions(mask, x.shape[-1]).to(x.dtype)
        attended = mask[:, None, None]
        for layer in self.layers:
            x = layer(x, attended)
        inside = mask.unsqueeze(-1).to(x.dtype)
        mean = (self.norm(x) * inside).sum(1) / inside.sum(1)
        found: Tensor = self.head(mean, *facts)
        return found


def positions(mask: Tensor, width: int) -> Tensor:
    """Sines and cosines, float (n, length, width), of how many events of its item follow each."""
    places = torch.arange(mask.shape[1], device=mask.device)
    back = mask.sum(1, keepdim=True) - 1 - places
    steps = torch.arange(0, width, 2, device=mask.device) / width
    angles = back.unsqueeze(-1) * torch.exp(-math.log(LONGEST_WAVE) * steps)
    return torch.cat([angles.sin(), angles.cos()], -1)


def _taken(
    inputs: Mapping[str, Tensor], columns: tuple[str, ...], facts: tuple[str, ...]
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """The events' columns, the mask and the facts. Raises DataError for what is missing or more."""
    wanted = (*columns, MASK, *facts)
    if inputs.keys() != set(wanted):
        raise DataError(
            f"the model is given {', '.join(sorted(inputs))}",
            hint=f"it takes, by name: {', '.join(wanted)}",
        )
    return [inputs[name] for name in columns], inputs[MASK], [inputs[name] for name in facts]
