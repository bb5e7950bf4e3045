"""Splits of items of different length: how people give them, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import petra
from petra.core.errors import DataError
from petra.core.ragged import Ragged
from petra.execute.pristine import Pristine
from petra.intake import examine
from petra.measure.client import write_split
from petra.measure.stored import PADDING, load_split
from petra.tasks.data import Split

LENGTHS = [4, 2, 7, 3, 5, 9]
ITEMS = [torch.arange(3 * n, dtype=torch.float32).reshape(n, 3) + 1 for n in LENGTHS]
Y = torch.tensor([0, 1, 0, 1, 1, 0])
MASKED = petra.Padding(mask="mask")


class Mean(nn.Module):
    """Logits of the mean over the steps that the mask lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        inside = mask.unsqueeze(-1).float()
        found: Tensor = self.head((x * inside).sum(1) / inside.sum(1))
        return found


def task(padding: petra.Padding = MASKED) -> petra.Task:
    items = [petra.ragged({"x": ITEMS * k}, Y.repeat(k), padding=padding) for k in (20, 10, 5)]
    return petra.classification(*items)


def test_both_ways_to_give_items_are_one() -> None:
    one = petra.ragged({"x": ITEMS}, Y, padding=MASKED)
    other = petra.ragged({"x": torch.cat(ITEMS)}, Y, lengths=LENGTHS, padding=MASKED)
    for a, b in zip(
        one.take(torch.arange(6))[0].values(), other.take(torch.arange(6))[0].values(), strict=True
    ):
        assert torch.equal(a, b)
    channels = petra.Padding(axis=-1)
    listed = petra.ragged([x.T for x in ITEMS], Y, padding=channels)
    whole = petra.ragged(torch.cat(ITEMS).T, Y, lengths=LENGTHS, padding=channels)
    assert torch.equal(listed.take(torch.arange(6))[0], whole.take(torch.arange(6))[0])


def test_passes_over_a_split() -> None:
    split = task().train
    items = [int(x["mask"].sum()) for x, _ in split.batches(1)]
    assert items == LENGTHS * 20
    for seed in (0, 1):
        lengths = torch.cat([x["mask"].sum(1) for x, _ in split.batches(16, seed=seed)])
        assert sorted(lengths.tolist()) == sorted(LENGTHS * 20)
        where = split.item_at(37, seed, 16)
        training = list(split.training_pass(16, seed=seed))
        batch = training[37 // 16][0]
        assert int(batch["mask"][37 % 16].sum()) == LENGTHS[where % 6]
    assert len(list(split.batches(16, seed=0, drop_last=True))) == 7
    assert split.head(2)["x"].shape == (2, 4, 3)
    assert task().example(3)["mask"].all()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a mask without names": (
        lambda: petra.ragged(ITEMS, Y, padding=MASKED),
        "takes 'mask' by name",
    ),
    "a mask twice": (
        lambda: petra.ragged({"x": ITEMS, "mask": ITEMS}, Y, padding=MASKED), "'mask' is given",
    ),
    "too few targets": (lambda: petra.ragged(ITEMS, Y[:3]), "6 items but 3 targets"),
    "an empty item": (lambda: petra.ragged([ITEMS[0], ITEMS[1][:0]], Y[:2]), "item 1 is empty"),
    "another axis": (lambda: petra.ragged([x.T for x in ITEMS], Y), r"petra.Padding\(axis=...\)"),
    "no such axis": (
        lambda: petra.ragged(ITEMS, Y, padding=petra.Padding(axis=2)), "has no axis 2",
    ),
    "lengths that do not add up": (
        lambda: petra.ragged(torch.cat(ITEMS), Y, lengths=[4, 2, 7, 3, 5, 8]), "add up to 29",
    ),
    "inputs that disagree": (
        lambda: petra.ragged({"a": ITEMS, "b": ITEMS[::-1]}, Y), "item 0 has 4 steps in 'a' and 9",
    ),
    "nothing ragged": (lambda: petra.ragged({"x": torch.zeros(6, 2)}, Y), "no input has a length"),
    "text": (lambda: petra.ragged([["a"], ["b", "c"]], Y[:2]), "item 0 are text"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused(kind: str) -> None:
    give, said = REFUSED[kind]
    with pytest.raises(DataError) as raised:
        give()
    assert re.search(said, f"{raised.value} {raised.value.hint}")


def test_a_model_that_averages_over_padding_is_refused() -> None:
    class Unmasked(Mean):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return super().forward(x, torch.ones_like(mask))

    assert examine(Mean(), task()).interface.lengths == (5, 9)
    with pytest.raises(DataError, match="depends on how far it is padded"):
        examine(Unmasked(), task())


def test_a_written_split_reads_back_and_holds_no_pickles(tmp_path: Path) -> None:
    split = Split.of(
        petra.ragged({"x": ITEMS, "row": torch.ones(6, 2)}, Y, padding=MASKED), name="val"
    )
    targets = write_split(split, tmp_path)
    assert targets.tolist() == Y.tolist()
    found = load_split(tmp_path).items
    assert isinstance(found, Ragged)
    for name, array in found.batch(np.arange(6)).items():
        np.testing.assert_array_equal(array, split.head(6)[name])
    for file in tmp_path.rglob("*.npy"):
        np.load(file, allow_pickle=False)
    np.save(tmp_path / "lengths.npy", np.array([4, 2, 7, 3, 5, 8]))
    with pytest.raises(DataError, match="values and lengths do not agree"):
        load_split(tmp_path)
    (tmp_path / PADDING).write_text('{"value": 0, "axis": 0, "code": "import os"}')
    with pytest.raises(DataError, match="is damaged"):
        load_split(tmp_path)


def test_stages_that_write_into_the_data_are_noticed() -> None:
    given = task()
    before = Pristine.of(Mean(), given)
    given.train.source.ragged.values["x"][0] += 1
    assert Pristine.of(Mean(), given).data != before.data
