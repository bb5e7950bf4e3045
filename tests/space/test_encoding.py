"""Stages and pipelines as numbers: exact where they can be, of one length, in the unit cube."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petra.core.pipeline import Pipeline
from petra.space.encoding import ABSENT, Encoding
from petra.testing.toy import CARDS, toy_space

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.name)
def test_stages_are_read_back_from_their_numbers(card) -> None:  # type: ignore[no-untyped-def]
    for seed in range(100):
        stage = card.sample(np.random.default_rng(seed))
        numbers = card.encode(stage)
        assert len(numbers) == card.width
        assert card.decode(numbers) == stage
    anything = card.decode([0.3] * card.width)
    assert card.normalize(anything.params) == anything


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_pipelines_are_vectors_of_one_length_in_the_unit_cube(seed: int) -> None:
    space = toy_space()
    encoding = Encoding(space)
    vector = encoding.encode(space.sample(np.random.default_rng(seed)))
    assert vector.shape == (len(encoding),)
    assert ((vector >= 0) & (vector <= 1)).all()


def test_numbers_say_what_their_names_say() -> None:
    space = toy_space()
    encoding = Encoding(space)
    cards = space.cards
    tune, prune = cards["tune"].normalize({"epochs": 1}), cards["prune"].normalize({"ratio": 0.5})
    last = cards["tune"].normalize({"epochs": 12, "optimizer": "adamw"})
    found = dict(zip(encoding.names, encoding.encode(Pipeline((tune, prune, last))), strict=True))
    assert (found["tune"], found["prune"], found["half"]) == (2 / 5, 1 / 5, 0)
    assert found["prune before tune"] == 0.0
    assert found["half before tune"] == ABSENT
    assert found["prune.ratio"] == pytest.approx(0.5)
    assert found["tune.epochs"] > 0.9, "of the last one"
    assert (found["tune.optimizer[0]"], found["tune.optimizer[1]"]) == (0.0, 1.0)
    assert found["tune.momentum"] == ABSENT, "adamw has none"
    assert found["distill.epochs"] == ABSENT


def test_what_differs_in_order_or_values_differs_in_its_numbers() -> None:
    space = toy_space()
    encoding = Encoding(space)
    tune, prune = (space.cards[kind].normalize({}) for kind in ("tune", "prune"))
    variants = [
        Pipeline(),
        Pipeline((tune,)),
        Pipeline((tune, prune)),
        Pipeline((prune, tune)),
        Pipeline((space.cards["tune"].normalize({"lr": 0.02}), prune)),
    ]
    assert len({tuple(encoding.encode(p)) for p in variants}) == len(variants)
