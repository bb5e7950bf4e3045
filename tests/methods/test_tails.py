"""Calibration items from the tails: which ones, how many, and of which tasks."""

from __future__ import annotations

import pytest
import torch
from regression_parts import unguarded
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import petra
from petra.methods.base import Context
from petra.methods.quantize.calibration import Calibration, measured
from petra.methods.quantize.tails import farthest, reach, with_tails
from petra.methods.quantize.worse import Moved, RiseOfError, moved
from petra.tasks.base import Task
from petra.tasks.data import Split


def values(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 5, generator=g), torch.randn(n, generator=g)


def split(n: int) -> Split:
    return Split.of(values(n), name="train")


def test_reach_is_of_inputs_and_targets() -> None:
    x, y = values(7)
    x[3, 1, 2] = torch.nan
    found = reach(({"series": x, "ids": torch.zeros(7, 2, dtype=torch.int64)}, y))
    flat = x.nan_to_num(0.0).reshape(7, -1)
    expected = torch.stack([flat.amax(1), -flat.amin(1), y, -y], 1)
    assert torch.equal(found, expected)
    ids = torch.zeros(4, 2, dtype=torch.int64)
    assert reach((ids, ids[:, 0])).shape == (4, 0)


@pytest.mark.parametrize("count", [1, 4, 9, 40, 100])
def test_farthest_are_the_first_of_every_column_in_turn(count: int) -> None:
    far = torch.randn(50, 4, generator=torch.Generator().manual_seed(count))
    expected: list[int] = []
    for rank in range(50):  # by hand
        for column in far.T.tolist():
            row = sorted(range(50), key=lambda i: -column[i])[rank]
            if row not in expected:
                expected.append(row)
    assert farthest(far, count) == expected[:count]
    assert farthest(torch.zeros(50, 0), count) == []


def test_a_share_is_far_out_and_the_rest_drawn() -> None:
    whole = split(900)
    found = with_tails(whole, 40, seed=3)
    assert found.only is not None
    chosen = found.only.tolist()
    assert len(chosen) == len(set(chosen)) == len(found) == 40
    pool = whole.order(3)[:320]
    x, y = (t[pool] for t in values(900))
    flat = x.reshape(len(x), -1)
    ends = [flat.amax(1).argmax(), flat.amin(1).argmin(), y.argmax(), y.argmin()]
    assert {int(pool[i]) for i in ends} <= set(chosen[:10])
    assert len(set(chosen) & set(pool[:40].tolist())) >= 30
    assert torch.equal(with_tails(whole, 40, seed=3).only, found.only)  # type: ignore[arg-type]


def test_what_is_small_or_has_an_order_of_its_own_is_left() -> None:
    assert with_tails(whole := split(30), 40, seed=0) is whole
    loader = Split.of(DataLoader(TensorDataset(*values(90)), batch_size=8), name="train")
    assert with_tails(loader, 10, seed=0) is loader


def task() -> Task:
    x, y = values(600)
    x[417, 0, 0] = 50.0
    y[23] = -40.0
    return petra.regression((x, y), (x, y), (x, y))


def context(of: Task) -> Context:
    return Context(task=of, teacher=nn.Identity(), seed=0)


def test_a_task_judged_by_its_error_is_calibrated_on_the_tails() -> None:
    regression = task()
    inputs = torch.cat(list(Calibration(context(regression), 64)))
    assert inputs.shape == (64, 3, 5)
    assert inputs.max() == 50.0
    targets = torch.cat([t for _, t in Calibration(context(regression), 64).pairs(64)])
    assert targets.min() == -40.0
    other = unguarded(regression)  # type: ignore[arg-type]
    seed = context(other).seed_for("calibration")
    first = torch.cat([x for x, _ in other.train.batches(64, seed=seed)])[:64]
    assert torch.equal(torch.cat(list(Calibration(context(other), 64))), first)


def test_pairs_are_the_first_of_the_items() -> None:
    calibration = Calibration(context(task()), 200)
    inputs = torch.cat(list(calibration))
    for items in (1, 64, 100, 128, 500):
        pairs = list(calibration.pairs(items))
        found = torch.cat([x for x, _ in pairs])
        assert torch.equal(found, inputs[:items])
        assert len(torch.cat([y for _, y in pairs])) == len(found) == min(items, 200)


def test_layers_are_ranked_by_the_tasks_own_error_where_it_has_one() -> None:
    regression = task()
    batches, worse = measured(Calibration(context(regression), 200), 128)
    assert sum(map(len, batches)) == 128  # type: ignore[arg-type]
    assert isinstance(worse, RiseOfError)
    assert len(worse.targets) == 128
    other = Calibration(context(unguarded(regression)), 200)  # type: ignore[arg-type]
    assert measured(other, 128)[1] == Moved(other.context.task)
    assert measured([torch.zeros(5, 2)], 3)[1] is moved
