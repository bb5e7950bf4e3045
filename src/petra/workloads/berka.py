"""Loans of the Berka data (PKDD'99 discovery challenge), with an event encoder trained on first
use.

409 loans of a Czech bank, each with the transactions of its account (38 to 562: type, operation,
and amount and balance in four bins each) and what is known of the loan; whether it went bad, 18.6%.
There is no official split, and few loans: by a fixed stratified draw half train, a quarter
validates and a quarter tests, 103 loans of which 19 are bad, so that the areas under the ROC curve
are uncertain by some hundredths.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.ragged import RaggedItems, ragged
from petra.training.config import TrainConfig
from petra.workloads.baseline import Reference, trained
from petra.workloads.events import NETWORKS, PADDING, check_network, rows_of
from petra.workloads.npz_files import Arrays, read_arrays
from petra.workloads.places import data_file
from petra.workloads.splits import held_out

FILE = "event_sequences/berka_loans_discretised.npz"
CATEGORIES = {"type": 2, "operation": 5}
BINS = {"amount_bin": 4, "balance_bin": 4}  # in order, so taken as numbers
FACTS = {"loan_amount_bin": 5, "payments_bin": 5}
LONGEST_LOAN = 60  # months
TRAINING = TrainConfig(40, 3e-3, optimizer="adamw", batch_size=16, weight_decay=0.01)


def berka_split(raw: Arrays, items: np.ndarray) -> RaggedItems:
    """The loans of these numbers, each a sequence of transactions."""
    offsets = raw["offsets"]
    lengths = np.diff(offsets)[items]
    rows = rows_of(offsets[:-1][items], lengths)
    bins = [raw[name][rows] / (count - 1) for name, count in BINS.items()]
    inputs: dict[str, object] = {
        name: raw[name][rows].astype(np.int64) + 1
        for name in CATEGORIES  # 0 is padding
    }
    inputs["numeric"] = np.stack(bins, 1).astype(np.float32)
    inputs["static"] = loan_facts(raw)[items]
    return ragged(inputs, raw["y"][items].astype(np.int64), lengths=lengths, padding=PADDING)


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
    raw = _read(data)
    labels = raw["y"]
    train, rest = held_out(len(labels), 0.5, labels=labels)
    val, test = held_out(len(rest), 0.5, labels=labels[rest])
    parts = [berka_split(raw, np.sort(i)) for i in (train, rest[val], rest[test])]
    return classification(*parts, metric="roc_auc", metrics=["accuracy"])


def berka(
    *, network: str = "gru", data: str | None = None, seed: int = 0, cache: str | None = None
) -> tuple[nn.Module, Task]:
    """Whether a loan goes bad, by an event `network`: gru or transformer.

    Trained on first use, a few minutes, then kept in `cache` (default: see
    `petra.workloads.places.cache_folder`). `data` is the path of the .npz file.
    """
    check_network(network)
    task = berka_task(data=data)
    categories = {name: count + 1 for name, count in CATEGORIES.items()}
    facts = loan_facts(_read(data)).shape[1]
    reference = Reference(
        f"berka-{network}",
        lambda: NETWORKS[network](categories, len(BINS), 2, static=facts),
        task,
        TRAINING,
        seed=seed,
    )
    return trained(reference, cache=cache), task


def _read(data: str | None) -> Arrays:
    columns = (*CATEGORIES, *BINS, *FACTS, "frequency", "duration", "offsets", "y")
    return read_arrays(data_file(FILE, data), *columns)
