"""Calibration items from the tails: those that reach farthest, which a few hundred drawn at random
mostly miss.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from petra.tasks.data import Batch, Split
from petra.tasks.inputs import named

SHARE = 0.25
"""Of the calibration items, so many are chosen for how far they reach."""

POOL = 8
"""Among so many times the calibration items the farthest are looked for."""

_BATCH = 256


def reach(batch: Batch) -> Tensor:
    """How far each item of a batch reaches, (b, k): largest and negated smallest value of every
    real input, and of the target. What is undefined counts as 0.
    """
    inputs, target = batch
    real = [t for t in (*named(inputs).values(), target) if t.is_floating_point() and t.numel()]
    flat = [t.reshape(len(t), -1).float().nan_to_num(0.0) for t in real]
    columns = [end for t in flat for end in (t.amax(1), -t.amin(1))]
    return torch.stack(columns, 1) if columns else torch.zeros(len(target), 0)


def farthest(far: Tensor, count: int) -> list[int]:
    """Rows of `far` (n, k), `count` at most: the largest of each column in turn, then the second
    largest, and so on.
    """
    order = torch.argsort(far, dim=0, descending=True, stable=True)[:count]
    return list(dict.fromkeys(order.flatten().tolist()))[:count]


def with_tails(split: Split, samples: int, *, seed: int) -> Split:
    """`samples` items of a data set: a `SHARE` of them those that reach farthest among the first
    `POOL` times as many in the order that `seed` gives, the others the first in that order.

    A smaller split is left as it is, and a loader, which has an order of its own. Costs reading the
    items that are looked at once.
    """
    if not isinstance(split.source, Dataset):
        return split
    pool = split.order(seed)[: POOL * samples]
    if len(pool) <= samples:
        return split
    far = torch.cat([reach(batch) for batch in replace(split, only=pool).batches(_BATCH)])
    chosen = farthest(far, round(SHARE * samples))
    places = list(dict.fromkeys([*chosen, *range(samples)]))[:samples]
    return replace(split, only=pool[places])
