"""Splits made for the user: laws that hold of any, and what cannot be parted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

import petra
from petra import data
from petra.core.errors import ConfigError, DataError
from petra.tasks.ragged import RaggedItems

SHARES = st.sampled_from([(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (1 / 3, 1 / 3, 1 / 3), (0.5, 0.3, 0.2)])
quick = settings(max_examples=60, deadline=None)


def members(n: int, **options: Any) -> list[np.ndarray]:
    """The numbers of the items of each part."""
    return [y for _, y in data.split(np.zeros((n, 1)), np.arange(n), **options)]


@given(
    n=st.integers(3, 200), shares=SHARES, seed=st.integers(0, 9), by=st.sampled_from([None, "time"])
)
@quick
def test_every_item_is_in_one_part(n: int, shares: Any, seed: int, by: Any) -> None:
    parts = members(n, parts=shares, seed=seed, by=by)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    for part, share in zip(parts, shares, strict=True):
        assert len(part) >= 1
        assert abs(len(part) - n * share) < 2
        assert (np.diff(part) > 0).all()
    if by == "time":
        assert np.concatenate(parts).tolist() == list(range(n))


@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=8),
    shares=SHARES,
    seed=st.integers(0, 9),
)
@quick
def test_classes_keep_their_shares(counts: list[int], shares: Any, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = members(len(labels), parts=shares, seed=seed, stratify=labels)
    for part, share in zip(parts, shares, strict=True):
        for kind, count in enumerate(counts):
            have = int((labels[part] == kind).sum())
            assert have >= 1
            assert abs(have - count * share) < 2
    # What classes leave over evens out, unless some are so small that each part gets one of them.
    if min(counts) * min(shares) >= 1:
        for part, share in zip(parts, shares, strict=True):
            assert abs(len(part) - len(labels) * share) < 2.5


@given(sizes=st.lists(st.integers(1, 9), min_size=20, max_size=60), seed=st.integers(0, 9))
@quick
def test_groups_stay_together(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = random.permutation(np.repeat([f"g{i}" for i in range(len(sizes))], sizes))
    parts = members(len(groups), by=groups, seed=seed)
    found = [set(groups[part]) for part in parts]
    assert sum(map(len, found)) == len(set.union(*found)) == len(sizes)
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(part) - len(groups) * share) <= max(sizes)


def test_groups_and_classes_together() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    labels = random.random(300) < np.repeat(random.choice([0.1, 0.9], 60), 5)
    parts = members(300, by=groups, stratify=labels)
    assert not set(groups[parts[0]]) & (set(groups[parts[1]]) | set(groups[parts[2]]))
    for part in parts:
        assert abs(labels[part].mean() - labels.mean()) < 0.08


def test_the_seed_decides() -> None:
    assert [p.tolist() for p in members(50, seed=1)] == [p.tolist() for p in members(50, seed=1)]
    assert members(50, seed=1)[0].tolist() != members(50, seed=2)[0].tolist()
    # Pinned: a study that is run again must see the same items.
    assert members(10)[1].tolist() == PINNED


PINNED = [0, 1]


def test_every_form_is_split_as_it_came() -> None:
    n = 20
    y = np.arange(n)
    x = np.arange(2 * n).reshape(n, 2)
    wanted = members(n)
    forms: list[Any] = [
        x,
        torch.from_numpy(x),
        list(x),
        pd.DataFrame(x),
        {"a": x, "b": list(x)},
        (x, torch.from_numpy(x)),
    ]
    for form in forms:
        for (part, targets), index in zip(data.split(form, y), wanted, strict=True):
            assert type(part) is type(form)
            assert targets.tolist() == index.tolist()
            columns = part.values() if isinstance(part, dict) else part
            for column in columns if isinstance(part, dict | tuple) else [part]:
                np.testing.assert_array_equal(np.asarray(column), x[index])
    words = [f"w{i}" for i in range(n)]
    assert data.split(x, words)[1][1] == [words[i] for i in wanted[1]]


def test_a_data_set_becomes_subsets() -> None:
    source = TensorDataset(torch.arange(20.0)[:, None], torch.arange(20) % 2)
    parts = data.split(source)
    assert [len(part) for part in parts] == [12, 4, 4]
    assert [float(part[0][0]) for part in parts] == [float(index[0]) for index in members(20)]
    task = petra.classification(*parts)
    assert len(task.val) == 4


def test_a_ragged_set_becomes_three() -> None:
    items = [np.full((1 + i % 4, 2), i, dtype=np.float32) for i in range(20)]
    inputs = {"x": items, "fact": np.arange(20.0)}
    whole = petra.ragged(inputs, np.arange(20), padding=petra.Padding(mask="mask"))
    for part, index in zip(data.split(whole), members(20), strict=True):
        assert isinstance(part, RaggedItems)
        batch, targets = part.take(torch.arange(len(part)))
        expected, _ = whole.take(torch.from_numpy(index))
        assert isinstance(batch, dict)
        assert isinstance(expected, dict)
        assert targets.tolist() == index.tolist()
        for name in expected:
            assert torch.equal(batch[name], expected[name])


X = np.zeros((10, 1))
Y = np.arange(10)
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"stratify": np.zeros(10)}, DataError, "all 10 items are '0.0'"),
    ({"stratify": [0] * 8 + [1] * 2}, DataError, "2 items are '1', too few"),
    ({"stratify": np.linspace(0, 1, 10)}, DataError, "1 items are '0.0', too few"),
    ({"stratify": [0, 1]}, DataError, r"stratify: list of shape \(2,\) for 10 items"),
    ({"stratify": [0, 1, None] + [0] * 7}, DataError, "item 2 has none"),
    ({"stratify": [0, np.nan] * 5}, DataError, "item 1 has none"),
    ({"by": ["a"] * 5 + ["b"] * 5}, DataError, "2 groups make no three parts"),
    ({"by": list("aaaaaaaabc"), "parts": (0.2, 0.4, 0.4)}, DataError, "group 'a' alone has 8"),
    ({"by": np.zeros((10, 2))}, DataError, r"of shape \(10, 2\)"),
    ({"by": "date"}, ConfigError, "by: 'date'"),
    ({"by": "time", "stratify": Y % 2}, ConfigError, "by: 'time' and stratify"),
    ({"parts": (0.5, 0.5, 0.5)}, ConfigError, "parts"),
    ({"parts": (1.0, 0.0, 0.0)}, ConfigError, "parts"),
    ({"parts": (0.8, 0.2)}, ConfigError, "parts"),
    ({"parts": ("a", "b", "c")}, ConfigError, "parts"),
    ({"parts": (np.nan, 0.5, 0.5)}, ConfigError, "parts"),
]


@pytest.mark.parametrize(("options", "kind", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_parted(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        data.split(X, Y, **options)
    assert caught.value.hint  # type: ignore[attr-defined]


def test_a_large_group_may_be_asked_for() -> None:
    parts = members(10, by=["a"] * 8 + ["b", "c"], parts=(0.8, 0.1, 0.1))
    assert [len(part) for part in parts] == [8, 1, 1]


def test_items_and_targets_must_agree() -> None:
    with pytest.raises(DataError, match="'a' has 9 items but there are 10 targets"):
        data.split({"a": X[:9]}, Y)
    with pytest.raises(DataError, match="2 items make no three parts"):
        data.split(X[:2], Y[:2])
    with pytest.raises(ConfigError, match="ndarray without targets"):
        data.split(X)
    items = petra.ragged([np.zeros((1 + i, 2)) for i in range(10)], Y)
    for source in (items, TensorDataset(torch.zeros(10, 1))):
        with pytest.raises(ConfigError, match="and targets") as caught:
            data.split(source, Y)
        assert "has its targets" in caught.value.hint
    with pytest.raises(DataError, match="targets is int"):
        data.split(X, 3)
