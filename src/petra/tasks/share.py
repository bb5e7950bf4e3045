"""A share of a split to train on: fixed, drawn from a seed, balanced over classes."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from petra.tasks.data import Split


def share_of(split: Split, share: float, *, seed: int) -> Split:
    """A `share` in (0, 1] of the items of a split; of one that is smaller, a part of the larger's.

    Of a data set, items drawn from `seed`; where its targets are class indices in memory, so many
    of every class, rounded up. Of a loader, which has an order of its own, the first items of every
    pass: the same ones only where it does not shuffle. Costs a pass over a loader that does not
    know its length, else nothing.
    """
    if share == 1:
        return split
    n = len(split)
    if not isinstance(split.source, Dataset):
        return replace(split, limit=math.ceil(share * n))
    order = split.order(seed)
    targets = split.targets()
    if targets is None or targets.ndim != 1 or targets.dtype != torch.int64:
        chosen = order[: math.ceil(share * n)]
    else:
        place = {number: i for i, number in enumerate(split.order(None).tolist())}
        labels = targets[[place[number] for number in order.tolist()]]
        chosen = order[_first_of_each(labels, share)]
    return replace(split, only=chosen.sort().values)


def _first_of_each(labels: Tensor, share: float) -> Tensor:
    """Positions of the first `share` of every class among `labels` (n,), at least one of each."""
    parts = []
    for label in sorted(set(labels.tolist())):
        places = (labels == label).nonzero().flatten()
        parts.append(places[: math.ceil(share * len(places))])
    return torch.cat(parts)
