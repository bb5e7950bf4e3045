"""How many channels each layer keeps: ranking, floors and rounding. Pure, on scores.

A layer's channels come in *units* that can only go together (one channel, or one per branch of a grouped or split
layer); all counts here are in units, and a unit of size c is worth c channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

MIN_SHARE = 0.1  # no layer is cut below this share of its original width: an empty layer cuts the network in two


@dataclass(frozen=True)
class Candidate:
    """A layer that may be cut: the scores of its remaining units, the units it had to begin with, channels a unit."""

    scores: Tensor
    original: int
    size: int = 1

    @property
    def remaining(self) -> int:
        return len(self.scores)

    def floor(self, round_to: int) -> int:
        """Fewest units it may keep: a multiple of `round_to`, at least MIN_SHARE of the original."""
        multiple = math.ceil(max(1.0, MIN_SHARE * self.original) / round_to) * round_to
        return min(multiple, self.remaining)


def nearest_multiple(x: float, step: int) -> int:
    """The multiple of `step` closest to x; halves go up, so that less is removed."""
    return math.floor(x / step + 0.5) * step


def keep_per_layer(candidates: Sequence[Candidate], *, ratio: float, round_to: int) -> list[int]:
    """Units kept in each layer when every layer loses the share `ratio` of its original units.

    Kept counts are the nearest multiples of `round_to`; a layer is left as it is where that is nearer still.
    """
    kept = []
    for c in candidates:
        target = (1 - ratio) * c.original
        multiple = max(c.floor(round_to), nearest_multiple(target, round_to))
        untouched = multiple >= c.remaining or abs(c.remaining - target) <= abs(multiple - target)
        kept.append(c.remaining if untouched else multiple)
    return kept


def keep_global(candidates: Sequence[Candidate], *, ratio: float, round_to: int) -> list[int]:
    """Units kept in each layer when the share `ratio` of all original channels goes, least important first.

    Scores must be comparable between layers. The ranking decides exact counts; rounding them to multiples of
    `round_to` then hands whole blocks to the layers with the largest remainders, so that the total stays within
    half a block of what was asked (floors permitting).
    """
    wanted = ratio * sum(c.size * c.original for c in candidates)
    wanted -= sum(c.size * (c.original - c.remaining) for c in candidates)
    exact = _ranked(candidates, wanted=wanted, round_to=round_to)
    kept = []
    for c, k in zip(candidates, exact, strict=True):
        kept.append(k if k == c.remaining else max(c.floor(round_to), k // round_to * round_to))
    spare = sum(c.size * (k - b) for c, k, b in zip(candidates, exact, kept, strict=True))
    by_remainder = sorted(range(len(candidates)), key=lambda i: (kept[i] - exact[i], i))
    for i in by_remainder:
        block = min(round_to, candidates[i].remaining - kept[i])
        if kept[i] < exact[i] and spare >= candidates[i].size * block / 2:
            kept[i] += block
            spare -= candidates[i].size * block
    return kept


def _ranked(candidates: Sequence[Candidate], *, wanted: float, round_to: int) -> list[int]:
    """Units left after removing the lowest-scored ones, in order, until about `wanted` channels are gone."""
    kept = [c.remaining for c in candidates]
    floors = [c.floor(round_to) for c in candidates]
    order = sorted((float(s), i, u) for i, c in enumerate(candidates) for u, s in enumerate(c.scores))
    removed = 0
    for _, i, _ in order:
        size = candidates[i].size
        if kept[i] > floors[i] and removed + size / 2 <= wanted:
            kept[i] -= 1
            removed += size
    return kept


def lowest(scores: Tensor, count: int) -> list[int]:
    """Indices of the `count` lowest scores, ties broken by position; ascending indices."""
    ranked = sorted(range(len(scores)), key=lambda i: (float(scores[i]), i))
    return sorted(ranked[:count])
