"""How many channels each layer keeps: ranking, floors and rounding. Pure, on scores.

A layer's channels come in *units* that can only go together (one channel, or one per branch of a
grouped or split layer); all counts here are in units, and a unit of size c is worth c channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

# No layer is cut below this share of its original width, since an empty layer cuts the network in
# two. Low enough for a ratio of 0.95 in every layer, of whatever width.
MIN_SHARE = 0.03


@dataclass(frozen=True)
class Candidate:
    """A layer that may be cut (or a segment of a group of coupled layers): the scores of its
    remaining units, the units it had to begin with, channels a unit.
    """

    scores: Tensor
    original: int
    size: int = 1

    @property
    def remaining(self) -> int:
        return len(self.scores)

    def step(self, round_to: int) -> int:
        """Units in the smallest number of channels that is a multiple of `round_to`."""
        return round_to // math.gcd(round_to, self.size)

    def floor(self, round_to: int) -> int:
        """Fewest units it may keep: whole steps of `round_to`, at least MIN_SHARE of all."""
        step = self.step(round_to)
        multiple = math.ceil(max(1.0, MIN_SHARE * self.original) / step) * step
        return min(multiple, self.remaining)


def nearest_multiple(x: float, step: int) -> int:
    """The multiple of `step` closest to x; halves go up, so that less is removed."""
    return math.floor(x / step + 0.5) * step


def keep_per_layer(candidates: Sequence[Candidate], *, ratio: float, round_to: int) -> list[int]:
    """Units kept in each layer when every layer loses the share `ratio` of its original units.

    Kept counts are the nearest multiples of `round_to`; a layer is left as it is where that is
    nearer still.
    """
    kept = []
    for c in candidates:
        target = (1 - ratio) * c.original
        multiple = max(c.floor(round_to), nearest_multiple(target, c.step(round_to)))
        untouched = multiple >= c.remaining or abs(c.remaining - target) <= abs(multiple - target)
        kept.append(c.remaining if untouched else multiple)
    return kept


def keep_global(candidates: Sequence[Candidate], *, ratio: float, round_to: int) -> list[int]:
    """Units kept in each layer when the share `ratio` of all channels goes, the least first.

    Scores must be comparable between layers. The ranking decides exact counts; rounding them to
    multiples of `round_to` then hands whole blocks to the layers with the largest remainders, so
    that the total stays within half a block of what was asked (floors permitting).
    """
    wanted = ratio * sum(c.size * c.original for c in candidates)
    wanted -= sum(c.size * (c.original - c.remaining) for c in candidates)
    exact = _ranked(candidates, wanted=wanted, round_to=round_to)
    kept = []
    for c, k in zip(candidates, exact, strict=True):
        step = c.step(round_to)
        kept.append(k if k == c.remaining else max(c.floor(round_to), k // step * step))
    spare = sum(c.size * (k - b) for c, k, b in zip(candidates, exact, kept, strict=True))
    by_remainder = sorted(range(len(candidates)), key=lambda i: (kept[i] - exact[i], i))
    for i in by_remainder:
        block = min(candidates[i].step(round_to), candidates[i].remaining - kept[i])
        if kept[i] < exact[i] and spare >= candidates[i].size * block / 2:
            kept[i] += block
            spare -= candidates[i].size * block
    return kept


def keep_per_block(
    candidates: Sequence[Candidate], blocks: Sequence[str], *, ratio: float, round_to: int
) -> list[int]:
    """Units kept in each layer when every block loses the share `ratio`, the least first.

    `blocks` names the block of each candidate; inside a block it is `keep_global`.
    """
    kept = [0] * len(candidates)
    for block in dict.fromkeys(blocks):
        members = [i for i, b in enumerate(blocks) if b == block]
        counts = keep_global([candidates[i] for i in members], ratio=ratio, round_to=round_to)
        for i, count in zip(members, counts, strict=True):
            kept[i] = count
    return kept


def block_of(path: str, modules: Mapping[str, object]) -> str:
    """The block that holds the layer at `path`: the outermost module on the way to it that has
    submodules and a sibling of its own type; '' where there is none. `modules` are all modules of
    the model by path.

    That is a stage where a network is made of stages (`layer2`), a layer of a transformer
    (`encoder.layer.3`).
    """
    parts = path.split(".")
    for depth in range(1, len(parts)):
        here, parent = ".".join(parts[:depth]), ".".join(parts[: depth - 1])
        siblings = [p for p in modules if p and p.rpartition(".")[0] == parent]
        if sum(type(modules[p]) is type(modules[here]) for p in siblings) > 1:
            return here
    return ""


def _ranked(candidates: Sequence[Candidate], *, wanted: float, round_to: int) -> list[int]:
    """Units left after removing the lowest in order, until about `wanted` channels are gone.

    Where scores are equal all layers give in turn, rather than the first all it has.
    """
    kept = [c.remaining for c in candidates]
    floors = [c.floor(round_to) for c in candidates]
    order = sorted(
        (float(s), u / c.remaining, i)
        for i, c in enumerate(candidates)
        for u, s in enumerate(c.scores)
    )
    removed = 0
    for _, _, i in order:
        size = candidates[i].size
        if kept[i] > floors[i] and removed + size / 2 <= wanted:
            kept[i] -= 1
            removed += size
    return kept


def lowest(scores: Tensor, count: int) -> list[int]:
    """Indices of the `count` lowest scores, ties broken by position; ascending indices."""
    ranked = sorted(range(len(scores)), key=lambda i: (float(scores[i]), i))
    return sorted(ranked[:count])
