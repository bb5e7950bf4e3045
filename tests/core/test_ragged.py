"""Padding, cropping and batching of items of different length, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from petra.core.errors import ConfigError
from petra.core.ragged import BLOCK, Padding, Ragged, by_length, stated_lengths

RANDOM = np.random.default_rng(0)


def make(lengths: list[int], *, axis: int = 0, value: float = -1.0) -> tuple[Ragged, list]:
    """Items (length, 3), or (3, length) where `axis` is -1, and the same as a list."""
    steps = [RANDOM.standard_normal((n, 3)).astype(np.float32) for n in lengths]
    padding = Padding(value=value, axis=axis, mask="mask", lengths="lengths", mask_type="int64")
    rows = {"row": RANDOM.standard_normal((len(lengths), 2))}
    data = Ragged({"x": np.concatenate(steps)}, np.array(lengths), padding, rows)
    return data, [np.moveaxis(s, 0, axis) for s in steps]


@pytest.mark.parametrize("axis", [0, -1, 1])
def test_a_batch_is_every_item_padded_to_the_longest(axis: int) -> None:
    data, items = make([3, 1, 5, 2], axis=axis)
    index = np.array([3, 0, 1])
    found = data.batch(index)
    assert found["x"].shape == (3, 3, 3)
    for row, i in enumerate(index):
        n = data.lengths[i]
        length_first = np.moveaxis(found["x"][row], axis, 0)
        np.testing.assert_array_equal(length_first[:n], np.moveaxis(items[i], axis, 0))
        assert (length_first[n:] == -1).all()
        assert found["mask"][row].tolist() == [1] * n + [0] * (3 - n)
    assert found["lengths"].tolist() == [2, 3, 1]
    np.testing.assert_array_equal(found["row"], data.items["row"][index])


def test_items_of_a_stated_length_are_cropped_and_never_padded() -> None:
    data, items = make([3, 9, 5, 2, 7])
    found = data.at_length(5, 4)
    assert found["x"].shape == (4, 5, 3)
    assert found["mask"].all()
    for row, i in enumerate([2, 4, 1, 2]):  # the nearest first, and again from the beginning
        np.testing.assert_array_equal(found["x"][row], items[i][:5])


def test_all_items_come_once_with_others_of_their_block() -> None:
    lengths = RANDOM.integers(1, 50, 2 * BLOCK + 77)
    data, _ = make(lengths.tolist())
    seen: list[int] = []
    for index, arrays in data.in_batches():
        assert len(set(index // BLOCK)) == 1
        assert arrays["x"].shape[1] == lengths[index].max()
        seen += index.tolist()
    assert sorted(seen) == list(range(len(lengths)))
    first = [index.tolist() for index, _ in data.in_batches(BLOCK)]
    assert first == [index.tolist() for index, _ in data.in_batches()][: len(first)]


def test_training_batches_hold_items_of_similar_length_in_random_order() -> None:
    lengths = RANDOM.integers(1, 100, 1000)
    order = RANDOM.permutation(1000)
    found = by_length(order, lengths, 32, np.random.default_rng(1))
    assert sorted(found.tolist()) == sorted(order.tolist())
    batches = np.split(found[: 1000 // 32 * 32], 1000 // 32)
    spread = np.mean([np.ptp(lengths[b]) for b in batches])
    assert spread < 0.2 * np.mean([np.ptp(lengths[order[i : i + 32]]) for i in range(0, 960, 32)])
    longest = [lengths[b].max() for b in batches]
    assert longest != sorted(longest)
    assert found[1000 // 32 * 32 :].tolist() == order[1000 // 32 * 32 :].tolist()


def test_stated_lengths_are_lengths_of_items() -> None:
    lengths = RANDOM.integers(1, 1000, 101)
    median, long = stated_lengths(lengths)
    assert {median, long} <= set(lengths.tolist())
    assert (lengths <= median).mean() >= 0.5
    assert (lengths <= long).mean() >= 0.95
    assert stated_lengths(np.array([7])) == (7, 7)


def test_padding_refuses_what_means_nothing() -> None:
    with pytest.raises(ConfigError, match="a mask of type 'uint9'"):
        Padding(mask_type="uint9")
    with pytest.raises(ConfigError, match="mask and lengths"):
        Padding(mask="m", lengths="m")
