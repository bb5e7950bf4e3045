"""What the workloads of event sequences have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import nn

from petra.core.errors import DataError, did_you_mean
from petra.core.ragged import Padding
from petra.networks.events import EventGRU, EventTransformer

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "gru": EventGRU,
    "transformer": EventTransformer,
}
PADDING = Padding(value=0, axis=0, mask="mask")


def check_network(name: str) -> None:
    """Raise DataError for the name of no event encoder."""
    if name not in NETWORKS:
        raise DataError(f"unknown network {name!r}", hint=did_you_mean(name, NETWORKS))


def rows_of(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Numbers of the rows of items that begin at `starts` and have `lengths` rows, one item behind
    the other.
    """
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    rows: np.ndarray = np.repeat(starts, lengths) + within
    return rows
