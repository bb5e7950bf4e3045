"""Data loaders, read without a trace: no workers kept, no random state moved, one order."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader


def detached(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A copy of the loader around the same dataset that keeps nothing between passes, so that it
    can be sent elsewhere.

    Persistent workers and a pass that was begun stay with the user's own.
    """
    kept = {id(loader.dataset): loader.dataset, id(loader.collate_fn): loader.collate_fn}
    begun = getattr(loader, "_iterator", None)
    if begun is not None:
        kept[id(begun)] = None  # type: ignore[assignment]
    twin = copy.deepcopy(loader, kept)
    # The class forbids assignment. Pinned pages serve copies to a GPU that overlap, which petra
    # does not make.
    vars(twin).update(_iterator=None, persistent_workers=False, pin_memory=False)
    return twin


def read_once(loader: DataLoader[Any], seed: int | None) -> Iterator[Any]:
    """Iterate once, in an order that depends on the loader and `seed` alone; ends when the loader's
    length says so."""
    twin = detached(loader)
    holders: tuple[Any, ...] = (
        twin, twin.sampler, twin.batch_sampler, getattr(twin.batch_sampler, "sampler", None),
    )  # fmt: skip
    for holder in holders:
        if hasattr(holder, "generator"):
            given = holder.generator
            if given is None:
                holder.generator = torch.Generator().manual_seed(seed or 0)
            elif seed is not None and isinstance(given, torch.Generator):
                given.manual_seed(seed)
    return iter(twin)
