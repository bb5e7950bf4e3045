"""Card clients who default (Yeh & Lien 2009, UCI), with an event encoder trained on first use.

30,000 clients of a bank in Taiwan: six months of repayment status, bill and payment, oldest first,
and what is known of the client; whether they default in the month after, 22.1%. There is no
official split: by a fixed stratified draw 60% train, 20% validate and 20% test. Amounts are taken
as signed logarithms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from petra.core.errors import DataError
from petra.data import split
from petra.data.npz import read_arrays
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.training.config import TrainConfig
from petra.workloads.baseline import Reference, trained
from petra.workloads.events import (
    NETWORKS,
    check_codes,
    check_finite,
    check_network,
    check_shapes,
)
from petra.workloads.places import data_file

FILE = "event_sequences/uci_credit_default.npz"
MONTHS = 6
STATUSES = range(-2, 9)  # paid in full, ..., eight months late
SEXES, EDUCATIONS, MARRIAGES = 3, 7, 4  # codes, from 0
TRAINING = TrainConfig(12, 2e-3, optimizer="adamw", batch_size=128, weight_decay=0.01)
Columns = dict[str, np.ndarray]


def credit_columns(raw: Columns) -> Columns:
    """What the encoder is given of n clients: `status` int64 (n, 6), `numeric` float32 (n, 6, 2),
    `static` float32 (n, 16) and `mask` bool (n, 6), true everywhere.
    """
    status = raw["seq"][:, :, 0].astype(np.int64) - STATUSES.start + 1  # 0 would be padding
    limit, sex, education, marriage, age = raw["static"].T
    static = np.column_stack(
        [
            np.log(limit) / 10,
            age / 50,
            _one_hot(sex, SEXES),
            _one_hot(education, EDUCATIONS),
            _one_hot(marriage, MARRIAGES),
        ]
    )
    return {
        "status": status,
        "numeric": signed_log(raw["seq"][:, :, 1:]),
        "static": static.astype(np.float32),
        "mask": np.ones(status.shape, dtype=bool),
    }


def signed_log(amounts: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|), in tens, float32: amounts of money of any size and sign."""
    logs = np.sign(amounts) * np.log1p(np.abs(amounts)) / 10
    found: np.ndarray = logs.astype(np.float32)
    return found


def credit_task(*, data: str | None = None) -> Task:
    """The clients as a task, its quality the area under the ROC curve."""
    path = data_file(FILE, data)
    raw = read_arrays(path, "seq", "static", "y")
    _check(raw, path)
    columns, labels = credit_columns(raw), raw["y"].astype(np.int64)
    parts = split(columns, labels, parts=(0.6, 0.2, 0.2), stratify=labels)
    columns_of = "petra.workloads.credit.credit_columns, of the file's arrays"
    return classification(*parts, metric="roc_auc", metrics=["accuracy"], preprocessing=columns_of)


def credit(
    *,
    network: str = "transformer",
    data: str | None = None,
    seed: int = 0,
    cache: str | None = None,
) -> tuple[nn.Module, Task]:
    """Whether a card client defaults next month, by an event `network`: transformer or gru.

    Trained on first use, one or two minutes, then kept in `cache` (default: see
    `petra.workloads.places.cache_folder`). `data` is the path of the .npz file.
    """
    check_network(network)
    task = credit_task(data=data)
    static = 2 + SEXES + EDUCATIONS + MARRIAGES
    categories = {"status": len(STATUSES) + 1}
    reference = Reference(
        f"credit-{network}",
        lambda: NETWORKS[network](categories, 2, 2, static=static),
        task,
        TRAINING,
        seed=seed,
    )
    return trained(reference, cache=cache), task


def _check(raw: Columns, path: Path) -> None:
    """Raise DataError for arrays that are not those of the file."""
    n = raw["y"].size
    check_shapes(raw, {"seq": (n, MONTHS, 3), "static": (n, 5), "y": (n,)}, path)
    limit, sex, education, marriage, _ = raw["static"].T
    check_codes("y", raw["y"], 2, path)
    check_codes("seq: status", raw["seq"][:, :, 0], len(STATUSES), path, first=STATUSES.start)
    check_codes("static: sex", sex, SEXES, path)
    check_codes("static: education", education, EDUCATIONS, path)
    check_codes("static: marriage", marriage, MARRIAGES, path)
    for name in ("seq", "static"):
        check_finite(name, raw[name], path)
    if limit.min() <= 0:
        raise DataError(f"{path}: static: a credit limit of {limit.min():g}", hint="above 0")


def _one_hot(codes: np.ndarray, count: int) -> np.ndarray:
    found: np.ndarray = np.eye(count)[codes.astype(np.int64)]
    return found
