"""The usual ways of fine-tuning: legal as they are, and inserting what they are called."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from petra.core.pipeline import Pipeline
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.copies.copying import copy_model
from petra.model.outline import outline_of
from petra.recipes.peft import USUAL, usual
from petra.testing.architectures import ARCHITECTURES

pytest.importorskip("transformers")

WIDTH, BLOCKS = 32, 2
WIDE = 2 * (WIDTH // 2) * WIDTH + WIDTH // 2 + WIDTH  # an adapter of half of the width
THIN = 2 * (WIDTH // 16) * WIDTH + WIDTH // 16 + WIDTH
LORA, PREFIX = 2 * 2 * 8 * WIDTH, 2 * 10 * WIDTH  # of a block
INSERTED = {
    "head only": {},
    "LoRA": {"lora": BLOCKS * LORA},
    "serial, Houlsby": {"serial": 2 * BLOCKS * THIN},
    "serial, Pfeiffer": {"serial": BLOCKS * THIN},
    "parallel": {"parallel": BLOCKS * THIN},
    "prefix": {"prefix": BLOCKS * PREFIX},
    "MAM": {"parallel": BLOCKS * WIDE, "prefix": BLOCKS * 3 * PREFIX},
    "UniPELT-like": {
        "lora": BLOCKS * LORA,
        "prefix": BLOCKS * PREFIX,
        "serial": BLOCKS * THIN,
    },
}


@cache
def problem() -> tuple[Any, Any]:
    return ARCHITECTURES.get("bert")()


def normalized(pipeline: Pipeline) -> Any:
    model, task = problem()
    (spec,) = pipeline.stages
    return STAGES.get(spec.kind).card_for(task, outline_of(model)).normalize(spec.params)


@pytest.mark.parametrize("name", USUAL)
def test_each_is_legal(name: str) -> None:
    spec = normalized(usual(name, WIDTH, epochs=3, lr=1e-3, full_lr=1e-5, batch_size=16))
    assert spec.kind == ("tune" if name == "full fine-tuning" else "adapt")
    assert spec.params["lr"] == (1e-5 if spec.kind == "tune" else 1e-3)
    assert (spec.params["epochs"], spec.params["batch_size"]) == (3, 16)
    assert USUAL[name].why


@pytest.mark.parametrize("name", [*INSERTED, "BitFit"])
def test_each_inserts_what_it_is_called(name: str) -> None:
    model, task = problem()
    stage = STAGES.get("adapt").from_spec(
        normalized(usual(name, WIDTH, epochs=1)), task, outline_of(model)
    )
    context = Context(task=task, teacher=model, seed=0)
    _, trace = stage.apply(copy_model(model), context)
    account: Any = trace.details["adapt"]
    assert account["head_parameters"] > 0
    if name == "BitFit":
        assert set(account["by_module"]) == {"bitfit"}
    else:
        assert account["by_module"] == INSERTED[name]


def test_names_are_known_and_single_ones_have_one_kind() -> None:
    for name, way in USUAL.items():
        sizes = set(way.modules or {}) - {"serial_at", "scaling", "head_only"}
        assert way.single == (len(sizes) == 1), name
    with pytest.raises(KeyError):
        usual("lora", WIDTH)
