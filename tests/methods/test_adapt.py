"""Adapting a transformer: what is trained, what is counted, what is left, and with what it goes
together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapting import ALL, KINDS, MERGED, OFF, adapt, assert_folds, numbers, problem, run
from torch import nn

from petra.core.errors import StageRefused
from petra.core.rng import generator
from petra.methods.adapt import around, inserted
from petra.methods.table import STAGES
from petra.model.layers.adapters import Bottleneck
from petra.model.layers.lora import LowRank
from petra.model.layers.vectors import Vector
from petra.model.outline import outline_of
from petra.model.surgery import count_parameters
from petra.tasks.base import Task

D, FF, BLOCKS = 32, 64, 2  # of the zoo's BERT
HEAD = D * D + D + D * 4 + 4
EXPECTED = {
    "serial": BLOCKS * (2 * D * 3 + 3 + D),
    "serial at both": 2 * BLOCKS * (2 * D * 3 + 3 + D),
    "parallel": BLOCKS * (2 * D * 3 + 3 + D),
    "prefix": BLOCKS * 2 * 3 * D,
    "prompt": 3 * D,
    "lora": BLOCKS * 2 * 2 * D * 3,
    "rslora": BLOCKS * 4 * 2 * D * 3,
    "dora": BLOCKS * (4 * (2 * D * 3 + D) + 2 * (D + FF) * 3 + D + FF),
    "ia3": BLOCKS * (2 * D + FF),
    "bitfit": BLOCKS * (4 * D + FF + D + 2 * D),
}


@pytest.fixture(scope="module")
def bert() -> tuple[nn.Module, Task]:
    return problem("bert")


def base_weights(model: nn.Module) -> list[torch.Tensor]:
    """All weights but those of modules and head, in order."""
    added = {id(p) for m in inserted(model).values() for p in m.parameters()}
    head = {
        id(p)
        for path, m in model.named_modules()
        if "pooler" in path or path.endswith("classifier")
        for p in m.parameters(recurse=False)
    }
    return [p for p in model.parameters() if id(p) not in added | head]


@pytest.mark.parametrize("kind", KINDS)
def test_modules_and_head_are_trained_and_nothing_else(
    kind: str, bert: tuple[nn.Module, Task]
) -> None:
    result, (trace,) = run(bert, adapt(**KINDS[kind], merge=False))
    before, after = base_weights(bert[0]), base_weights(result)
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "bit for bit"
    assert not torch.equal(bert[0].classifier.weight, result.classifier.weight)
    for module in inserted(result).values():
        if isinstance(module, Vector):
            assert len(module.values.unique()) > 1
        elif isinstance(module, Bottleneck | LowRank):
            assert module.up.weight.any(), "it began at zero"
    found = numbers(trace)
    assert found["trainable_parameters"] == EXPECTED[kind]
    assert found["head_parameters"] == HEAD
    assert found["share"] == pytest.approx(EXPECTED[kind] / count_parameters(bert[0]))
    assert list(found["by_module"]) == [next(iter(around(result).values())).kind]
    elements = sum(count_parameters(m) for m in inserted(result).values())
    assert elements == EXPECTED[kind]


@pytest.mark.parametrize("kind", MERGED)
def test_merged_is_unmerged(kind: str, bert: tuple[nn.Module, Task]) -> None:
    spec = KINDS[kind]
    apart, _ = run(bert, adapt(**spec, merge=False))
    assert_folds(apart, bert[1])
    merged, (trace,) = run(bert, adapt(**spec))
    assert str(merged) == str(bert[0]), "the modules it had"
    assert all(p.requires_grad for p in merged.parameters())
    assert trace.details["apart"] == {}
    assert count_parameters(merged) == count_parameters(bert[0])


def test_all_kinds_at_once_count_what_each_counts(bert: tuple[nn.Module, Task]) -> None:
    result, (trace,) = run(bert, adapt(**ALL, merge=False))
    found = numbers(trace)
    assert set(found["by_module"]) == {
        "serial", "parallel", "prefix", "prompt", "lora", "ia3", "bitfit"
    }  # fmt: skip
    assert sum(found["by_module"].values()) == found["trainable_parameters"]
    merged = assert_folds(result, bert[1])
    assert {m.kind for m in around(merged).values()} == {"serial", "parallel", "prefix", "prompt"}
    frozen = [n for n, p in merged.named_parameters() if not p.requires_grad]
    assert "bert.layer.embeddings.word_embeddings.weight" in frozen


def test_bits_choose_blocks(bert: tuple[nn.Module, Task]) -> None:
    off = {"layer.bert.encoder.layer.0": False}
    _, (trace,) = run(bert, adapt(**off))
    assert [t for t in trace.touched if "encoder" in t] == [
        "bert.encoder.layer.1.attention.self.query",
        "bert.encoder.layer.1.attention.self.value",
    ]
    assert trace.skipped == {"bert.encoder.layer.0": "not chosen"}
    assert numbers(trace)["by_module"] == {"lora": 2 * 2 * D * 6}
    with pytest.raises(StageRefused, match="no block is chosen"):
        run(bert, adapt(**off, **{"layer.bert.encoder.layer.1": False}))


def test_nothing_on_is_refused_and_the_head_alone_is_asked_for(
    bert: tuple[nn.Module, Task],
) -> None:
    with pytest.raises(StageRefused, match="no kind of module is on"):
        run(bert, adapt(**OFF))
    with pytest.raises(StageRefused, match="the head alone"):
        run(bert, adapt(head_only=True))
    result, (trace,) = run(bert, adapt(**OFF, head_only=True))
    assert numbers(trace) == {
        "trainable_parameters": 0, "head_parameters": HEAD, "by_module": {}, "share": 0.0
    }  # fmt: skip
    for a, b in zip(base_weights(bert[0]), base_weights(result), strict=True):
        assert torch.equal(a, b)


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(StageRefused, match="no repeated blocks"):
        run(problem("mlp"), adapt())
    model, task = problem("mlp")
    assert "no repeated blocks" in STAGES.get("adapt").objection(model, task)


def test_what_is_drawn_has_something_on(bert: tuple[nn.Module, Task]) -> None:
    card = STAGES.get("adapt").card_for(bert[1], outline_of(bert[0]))
    names = [p.name for p in card.parameters]
    assert "layer.bert.encoder.layer.1" in names
    for i in range(300):
        params = card.sample(generator(i)).params
        sizes = [params[n] for n in ("serial", "parallel", "prefix", "lora", "prompt")]
        assert any(sizes) or params["ia3"] or params["bitfit"]


# -- what published configurations count -----------------------------------------------------------

BASE = 109_482_240  # BERT-base with its pooler


@pytest.mark.parametrize(
    ("params", "percent"),
    [
        ({"serial": 48}, 0.81),
        ({"parallel": 48}, 0.81),
        ({"lora": 8}, 0.27),
        ({"prefix": 10}, 0.17),
        ({"serial": 48, "lora": 8, "prefix": 10}, 1.25),  # UniPELT, without gates
        ({"parallel": 384, "prefix": 30}, 6.97),  # MAM
        ({"bitfit": True}, 0.09),
        ({"ia3": True}, 0.05),
    ],
)
def test_shares_of_published_configurations(params: dict[str, Any], percent: float) -> None:
    """Table 2 of AutoPEFT; Ben Zaken et al. 2022. The formulas are those of `EXPECTED`."""
    d, ff, blocks = 768, 3072, 12
    count = 0
    for kind, size in params.items():
        count += (
            blocks
            * {
                "serial": 2 * d * size + size + d,
                "parallel": 2 * d * size + size + d,
                "lora": 2 * 2 * d * size,
                "prefix": 2 * size * d,
                "bitfit": 4 * d + ff + d + 2 * d,
                "ia3": 2 * d + ff,
            }[kind]
        )
    assert 100 * count / BASE == pytest.approx(percent, abs=0.02)


@pytest.mark.slow
def test_true_sizes_count_what_the_formulas_say() -> None:
    import transformers

    from petra.methods.adapt.attach import Wanted, attach
    from petra.methods.adapt.places import find_places

    config = transformers.BertConfig(num_labels=2)
    model = transformers.BertForSequenceClassification(config).eval()
    assert count_parameters(model.bert) == BASE
    blocks = [f"bert.encoder.layer.{i}" for i in range(12)]
    found, _ = find_places(model, {"input_ids": torch.randint(5, 99, (2, 4))}, blocks)
    attach(model, found.values(), Wanted(serial=48, lora=8), torch.Generator())
    total = sum(count_parameters(m) for m in inserted(model).values())
    assert total == 12 * (2 * 768 * 48 + 48 + 768 + 4 * 768 * 8)


def test_what_means_nothing_is_left_out() -> None:
    card = STAGES.get("adapt").card()

    def written(**params: Any) -> set[str]:
        hanging = {"activation", "dropout", "scaling", "serial_at", "lora_kind", "lora_targets"}
        return set(card.normalize(params).params) & hanging

    assert written(lora=0, ia3=True) == set()
    assert written() == {"dropout", "lora_kind", "lora_targets"}
    assert written(lora=0, parallel=3) == {"activation", "dropout", "scaling"}
    assert written(lora=0, serial=3) == {"activation", "dropout", "serial_at"}
