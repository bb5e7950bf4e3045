"""The record of what a model takes and returns."""

from __future__ import annotations

import json

import pytest

from petra.core.interface import (
    BATCH,
    FREE_SIZE,
    LENGTH,
    Axis,
    Interface,
    TensorSpec,
    judged_output,
)

STEPS = Axis(LENGTH, 3, 90, (20, 60))
RAGGED = Interface(
    (
        TensorSpec("x", "float32", (Axis(BATCH), Axis.fixed(4), STEPS), 0),
        TensorSpec("mask", "bool", (Axis(BATCH), STEPS), 0),
    ),
    (TensorSpec("output", "float32", (Axis(BATCH), Axis.fixed(2)), 0),),
    ("output",),
)


def test_it_reads_back_from_json() -> None:
    assert Interface.from_dict(json.loads(json.dumps(RAGGED.as_dict()))) == RAGGED


def test_free_sizes_and_shapes() -> None:
    assert [spec.shape for spec in RAGGED.inputs] == [(None, 4, None), (None, None)]
    assert RAGGED.free_batch == {"x": 0, "mask": 0}
    assert RAGGED.lengths == (20, 60)
    assert RAGGED.shapes(5) == {"x": (5, 4, 20), "mask": (5, 20)}


def test_it_says_what_it_is() -> None:
    assert [str(spec) for spec in (*RAGGED.inputs, *RAGGED.outputs)] == [
        "x: float32 (batch, 4, length 3 to 90)",
        "mask: bool (batch, length 3 to 90)",
        "output: float32 (batch, 2)",
    ]


def test_a_batch_that_is_fixed() -> None:
    fixed = Interface((TensorSpec("x", "float32", (Axis.fixed(8), Axis("time")), 0),))
    assert (fixed.free_batch, fixed.fixed_batch) == ({}, 8)
    assert fixed.shapes(3) == {"x": (8, FREE_SIZE)}


def test_items_that_happen_to_be_equally_long_leave_the_length_free() -> None:
    assert Axis(LENGTH, 7, 7, (7, 7)).size is None


@pytest.mark.parametrize(("names", "judged"), [(["a", "logits"], "logits"), (["b", "a"], "b")])
def test_which_output_is_judged(names: list[str], judged: str) -> None:
    assert judged_output(names) == judged
