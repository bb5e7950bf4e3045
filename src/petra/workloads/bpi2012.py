"""What happens next to a loan application (BPI Challenge 2012), with an event encoder trained on
first use.

9,658 applications and 72,413 completed work items of six activities, with their times. An item is
the beginning of a case, at least two events, of long ones the last `LONGEST`; its class is the
activity that follows, or the end of the case. As Tax et al. 2017 have it, the cases that begin in
the first two thirds train and the others test; of the former the last fifth validates.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from petra.data.npz import read_arrays
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.ragged import RaggedItems, ragged
from petra.training.config import TrainConfig
from petra.workloads.baseline import Reference, trained
from petra.workloads.events import (
    NETWORKS,
    PADDING,
    check_codes,
    check_finite,
    check_network,
    check_offsets,
    check_shapes,
    rows_of,
)
from petra.workloads.npz_files import Arrays
from petra.workloads.places import data_file

FILE = "event_sequences/bpi2012_loan_workitems.npz"
ACTIVITIES = 6
LONGEST = 40  # events that are looked at
DAY_S = 86_400.0
TRAINING = TrainConfig(20, 3e-3, optimizer="adamw", batch_size=128, weight_decay=0.01)


def beginnings(raw: Arrays, cases: np.ndarray) -> RaggedItems:
    """All beginnings of two events and more of the cases of these numbers, by case and length."""
    offsets = raw["offsets"]
    sizes = np.diff(offsets)[cases]
    counts = sizes - 1
    starts = np.repeat(offsets[:-1][cases], counts)
    lengths = rows_of(np.full(len(cases), 2), counts)
    ends = starts + lengths
    last = lengths == np.repeat(sizes, counts)
    following = raw["activity"][np.minimum(ends, len(raw["activity"]) - 1)].astype(np.int64) - 1
    shown = np.minimum(lengths, LONGEST)
    rows = rows_of(ends - shown, shown)
    inputs: dict[str, object] = {
        "activity": raw["activity"][rows].astype(np.int64),
        "numeric": event_times(raw)[rows],
    }
    labels = np.where(last, ACTIVITIES, following)
    return ragged(inputs, labels, lengths=shown, padding=PADDING)


def event_times(raw: Arrays) -> np.ndarray:
    """Of every event, float32 (n, 4): logarithms of the seconds since the event before and since
    the case began, in tens, and the time of the day as a point on a circle.
    """
    seconds, offsets = raw["t_seconds"], raw["offsets"]
    begun = np.repeat(seconds[offsets[:-1]], np.diff(offsets))
    gaps = np.diff(seconds, prepend=0.0)
    gaps[offsets[:-1]] = 0.0
    angle = 2 * np.pi * (seconds % DAY_S) / DAY_S
    columns = [
        np.log1p(np.maximum(gaps, 0.0)) / 10,
        np.log1p(np.maximum(seconds - begun, 0.0)) / 10,
        np.sin(angle),
        np.cos(angle),
    ]
    found: np.ndarray = np.stack(columns, 1).astype(np.float32)
    return found


def bpi2012_task(*, data: str | None = None) -> Task:
    """The beginnings as a task of seven classes: six activities, and the end."""
    path = data_file(FILE, data)
    raw = read_arrays(path, "activity", "offsets", "t_seconds")
    events = raw["activity"].size
    check_shapes(raw, {"activity": (events,), "t_seconds": (events,)}, path)
    check_codes("activity", raw["activity"], ACTIVITIES, path, first=1)
    check_offsets(raw["offsets"], events, path)
    check_finite("t_seconds", raw["t_seconds"], path)
    order = np.argsort(raw["t_seconds"][raw["offsets"][:-1]], kind="stable")
    first, rest = np.split(order, [2 * len(order) // 3])
    train, val = np.split(first, [4 * len(first) // 5])
    columns_of = "petra.workloads.bpi2012.beginnings, of the file's arrays"
    parts = (beginnings(raw, cases) for cases in (train, val, rest))
    return classification(*parts, preprocessing=columns_of)


def bpi2012(
    *, network: str = "gru", data: str | None = None, seed: int = 0, cache: str | None = None
) -> tuple[nn.Module, Task]:
    """The next activity of a loan application, by an event `network`: gru or transformer.

    Trained on first use, a few minutes, then kept in `cache` (default: see
    `petra.workloads.places.cache_folder`). `data` is the path of the .npz file.
    """
    check_network(network)
    task = bpi2012_task(data=data)
    reference = Reference(
        f"bpi2012-{network}",
        lambda: NETWORKS[network]({"activity": ACTIVITIES + 1}, 4, ACTIVITIES + 1),
        task,
        TRAINING,
        seed=seed,
    )
    return trained(reference, cache=cache), task
