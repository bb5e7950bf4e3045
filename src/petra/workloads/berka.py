"""Loans of the Berka data (PKDD'99 discovery challenge), with an event encoder trained on first
use.

409 loans of a Czech bank, each with the transactions of its account (38 to 562: type, operation,
and amount and balance in four bins each) and what is known of the loan; whether it went bad, 18.6%.
There is no official split, and few loans: by a fixed stratified draw half train, a quarter
validates and a quarter tests, 102 loans of which 19 are bad, so that the areas under the ROC curve
are uncertain by some hundredths.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from petra.data import split
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
    check_network,
    check_offsets,
    check_shapes,
)
from petra.workloads.npz_files import Arrays
from petra.workloads.places import data_file

FILE = "event_sequences/berka_loans_discretised.npz"
CATEGORIES = {"type": 2, "operation": 5}
BINS = {"amount_bin": 4, "balance_bin": 4}  # in order, so taken as numbers
FACTS = {"loan_amount_bin": 5, "payments_bin": 5}
LONGEST_LOAN = 60  # months
TRAINING = TrainConfig(40, 3e-3, optimizer="adamw", batch_size=16, weight_decay=0.01)


def loans(raw: Arrays) -> RaggedItems:
    """All loans, each a sequence of transactions."""
    bins = [raw[name] / (count - 1) for name, count in BINS.items()]
    inputs: dict[str, object] = {
        name: raw[name].astype(np.int64) + 1  # 0 is padding
        for name in CATEGORIES
    }
    inputs["numeric"] = np.stack(bins, 1).astype(np.float32)
    inputs["static"] = loan_facts(raw)
    lengths = np.diff(raw["offsets"])
    return ragged(inputs, raw["y"].astype(np.int64), lengths=lengths, padding=PADDING)


def loan_facts(raw: Arrays) -> np.ndarray:
    """What is known of each loan, float32 (n, facts)."""
    kinds = np.unique(raw["frequency"])
    columns = [
        *(np.eye(count)[raw[name]] for name, count in FACTS.items()),
        raw["frequency"][:, None] == kinds,
        raw["duration"][:, None] / LONGEST_LOAN,
    ]
    return np.hstack(columns).astype(np.float32)


def berka_task(*, data: str | None = None) -> Task:
    """The loans as a task, its quality the area under the ROC curve."""
    columns = (*CATEGORIES, *BINS, *FACTS, "frequency", "duration", "offsets", "y")
    path = data_file(FILE, data)
    raw = read_arrays(path, *columns)
    _check(raw, path)
    parts = split(loans(raw), parts=(0.5, 0.25, 0.25), stratify=raw["y"])
    columns_of = "petra.workloads.berka.loans, of the file's arrays"
    return classification(*parts, metric="roc_auc", metrics=["accuracy"], preprocessing=columns_of)


def _check(raw: Arrays, path: Path) -> None:
    """Raise DataError for arrays that are not those of the file."""
    events, loans = (CATEGORIES | BINS, raw["type"].size), (FACTS, raw["y"].size)
    for counts, size in (events, loans):
        check_shapes(raw, dict.fromkeys(counts, (size,)), path)
        for name, count in counts.items():
            check_codes(name, raw[name], count, path)
    check_shapes(raw, dict.fromkeys(("frequency", "duration", "y"), (loans[1],)), path)
    check_codes("y", raw["y"], 2, path)
    check_codes("duration", raw["duration"], LONGEST_LOAN, path, first=1)
    check_shapes(raw, {"offsets": (loans[1] + 1,)}, path)
    check_offsets(raw["offsets"], events[1], path)


def berka(
    *, network: str = "gru", data: str | None = None, seed: int = 0, cache: str | None = None
) -> tuple[nn.Module, Task]:
    """Whether a loan goes bad, by an event `network`: gru or transformer.

    Trained on first use, a few minutes, then kept in `cache` (default: see
    `petra.workloads.places.cache_folder`). `data` is the path of the .npz file.
    """
    check_network(network)
    task = berka_task(data=data)
    example = task.example(1)
    assert isinstance(example, dict)
    categories, facts = {n: c + 1 for n, c in CATEGORIES.items()}, example["static"].shape[1]
    reference = Reference(
        f"berka-{network}",
        lambda: NETWORKS[network](categories, len(BINS), 2, static=facts),
        task,
        TRAINING,
        seed=seed,
    )
    return trained(reference, cache=cache), task
