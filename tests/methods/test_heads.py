"""Head pruning: cuts against projections zeroed by hand on many architectures, scores and choice by
brute force.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from headed_parts import architecture, context, logits
from torch import nn

from petra.methods.prune.head_cut import find_bundles
from petra.methods.prune.heads import (
    TEMPERATURE,
    HeadPrune,
    choose,
    gate_gradients,
    magnitude,
)
from petra.methods.prune.statistics import SMOOTHING
from petra.model.attention.heads import gated
from petra.model.attention.separate import HeadwiseAttention
from petra.model.description.state_hash import state_hash
from petra.tasks.inputs import call, map_inputs, prediction

# Where, seen from an attention layer, the projection that reads its heads is.
READERS = {
    "bert": "../output.dense",
    "roberta": "../output.dense",
    "distilbert": "out_lin",
    "albert": "dense",
    "deberta_v2": "../output.dense",
    "gpt2": "c_proj",
    "llama": "o_proj",
    "qwen2": "o_proj",
    "bart": "out_proj",
    "t5": "o",
    "vit": "o_proj",
    "beit": "o_proj",
    "swin": "o_proj",
    "mobilevit": "../output.dense",
    "whisper": "out_proj",
    "wav2vec2": "out_proj",
    "patchtst": "out_proj",
}


def zeroed(model: nn.Module, reader: str, first: int, count: int) -> None:
    """Make the layer at `reader` blind to some of its inputs."""
    layer: Any = model.get_submodule(reader)
    with torch.no_grad():
        if isinstance(layer, nn.Linear):
            layer.weight[:, first : first + count] = 0
        else:
            layer.weight[first : first + count] = 0


def reader_of(path: str, relative: str) -> str:
    parent = path.rpartition(".")[0]
    return f"{parent}.{relative[3:]}" if relative.startswith("../") else f"{path}.{relative}"


@pytest.mark.parametrize("name", sorted(READERS))
def test_without_a_head_a_model_computes_what_it_did_blind_to_it(name: str) -> None:
    """The removed heads' inputs of the output projections zeroed by hand must give the same."""
    model, task = architecture(name)
    pruned, trace = HeadPrune(ratio=0.5, importance="magnitude").apply(
        copy.deepcopy(model), context(model, task)
    )
    assert trace.touched
    blind = copy.deepcopy(model)
    removed: Any = trace.details["removed"]
    heads: Any = trace.details["heads"]
    for path, units in removed.items():
        reader = reader_of(path, READERS[name])
        layer: Any = model.get_submodule(reader)
        width = layer.weight.shape[1 if isinstance(layer, nn.Linear) else 0]
        before, after = heads[path]
        unit = width * (before - after) // before // len(units)  # channels that go with one unit
        for u in units:
            zeroed(blind, reader, u * unit, unit)
        cut: Any = pruned.get_submodule(reader)
        assert cut.weight.shape[1 if isinstance(layer, nn.Linear) else 0] == width - unit * len(
            units
        )
    assert torch.allclose(logits(pruned, task), logits(blind, task), atol=1e-4)
    assert not torch.allclose(logits(pruned, task), logits(model, task), atol=1e-4)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters())


def test_torchs_own_attention_is_cut_too() -> None:
    model, task = architecture("torch")
    pruned, trace = HeadPrune(ratio=0.25, importance="magnitude", spread="per_layer").apply(
        copy.deepcopy(model), context(model, task)
    )
    assert set(trace.touched) == {"encoder.layers.0.self_attn", "encoder.layers.1.self_attn"}
    blind = copy.deepcopy(model)
    removed: Any = trace.details["removed"]
    for path, units in removed.items():
        for u in units:
            zeroed(blind, f"{path}.out_proj", 8 * u, 8)
        attention = pruned.get_submodule(path)
        assert isinstance(attention, HeadwiseAttention)
        assert (attention.num_heads, attention.head_dim, attention.embed_dim) == (3, 8, 32)
        assert attention.q_proj.weight.shape == (24, 32)
    assert torch.allclose(logits(pruned, task), logits(blind, task), atol=1e-5)


def test_head_counts_follow_and_what_has_no_removed_head_stays_as_it_was() -> None:
    model, task = architecture("bert")
    pruned, trace = HeadPrune(ratio=0.13, importance="output").apply(
        copy.deepcopy(model), context(model, task)
    )
    (path,) = trace.touched
    attention: Any = pruned.get_submodule(path)
    assert (
        attention.num_attention_heads,
        attention.all_head_size,
        attention.attention_head_size,
    ) == (3, 24, 8)
    assert (attention.query.out_features, attention.query.weight.shape) == (24, (24, 32))
    (other,) = trace.skipped
    assert trace.skipped[other] == "none of its heads was chosen"
    assert state_hash(pruned.get_submodule(other)) == state_hash(model.get_submodule(other))


def test_key_value_heads_go_with_their_query_heads() -> None:
    model, task = architecture("llama")
    pruned, trace = HeadPrune(ratio=0.5, spread="per_layer", importance="magnitude").apply(
        copy.deepcopy(model), context(model, task)
    )
    attention: Any = pruned.get_submodule(trace.touched[0])
    widths = [p.weight.shape[0] for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
    assert widths == [16, 8, 8]
    assert attention.num_key_value_groups == 2
    assert trace.details["heads"] == {path: [4, 2] for path in trace.touched}


def test_layers_that_share_a_position_table_lose_the_same_heads() -> None:
    """T5 computes a bias per head in the first layer of a stack and hands it to all others."""
    model, task = architecture("t5")
    pruned, trace = HeadPrune(ratio=0.25, spread="per_layer", importance="magnitude").apply(
        copy.deepcopy(model), context(model, task)
    )
    removed: Any = trace.details["removed"]
    stacks = {path.replace("block.1", "block.0") for path in removed}
    assert len(removed) == 2 * len(stacks) == 6
    for first in stacks:
        assert removed[first] == removed[first.replace("block.0", "block.1")]
    table: Any = pruned.get_submodule(
        "model.encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    )
    assert table.weight.shape == (32, 3)


# -- scores ----------------------------------------------------------------------------------------


def test_the_measured_effect_by_brute_force() -> None:
    """Zero every head by hand, in every layer, and compare predictions on the very same items."""
    model, task = architecture("bert")
    where = context(model, task)
    _, trace = HeadPrune(ratio=0.13, importance="output").apply(copy.deepcopy(model), where)
    inputs, _ = next(task.train.batches(64, seed=where.seed_for("probe")))
    found = {}
    for layer, head in itertools.product(range(2), range(4)):
        blind = copy.deepcopy(model)
        zeroed(blind, f"bert.encoder.layer.{layer}.attention.output.dense", 8 * head, 8)
        with torch.no_grad():
            a, b = prediction(call(blind, inputs)), prediction(call(model, inputs))
        apart = task.distance().setting(temperature=TEMPERATURE)
        found[layer, head] = float(apart({"output": a}, {"output": b}))
    layer, head = min(found, key=found.__getitem__)
    assert trace.details["removed"] == {f"bert.encoder.layer.{layer}.attention.self": [head]}


def test_gate_gradients_against_finite_differences() -> None:
    model, task = architecture("distilbert")
    model.double()
    example = task.example(2)
    bundles, _ = find_bundles(model, example, generator=torch.Generator().manual_seed(0))
    inputs, target = next(task.train.batches(3, seed=0))
    got = gate_gradients(model, bundles, inputs, target, task)

    def loss(item: int, layer: int, head: int, gate: float) -> float:
        gates = torch.ones(4, dtype=torch.float64)
        gates[head] = gate
        one = map_inputs(inputs, lambda t: t[item : item + 1])
        with torch.no_grad(), gated(model, bundles[layer][0], gates):
            out = prediction(call(model, one))
        return float(
            task.loss("cross_entropy").setting(label_smoothing=SMOOTHING)(
                {"output": out}, target[item : item + 1]
            )
        )

    step = 1e-4
    for layer, head in itertools.product(range(2), range(4)):
        slopes = [
            (loss(i, layer, head, 1 + step) - loss(i, layer, head, 1 - step)) / (2 * step)
            for i in range(3)
        ]
        assert float(got[layer][head]) == pytest.approx(
            float(np.mean(np.abs(slopes))), rel=1e-3, abs=1e-7
        )


def test_magnitude_is_the_norm_of_all_that_goes() -> None:
    model, task = architecture("gpt2")
    bundles, _ = find_bundles(model, task.example(2), generator=torch.Generator().manual_seed(0))
    (heads,), *_ = bundles
    attention: Any = model.get_submodule(heads.path)
    for unit, value in enumerate(magnitude(model, heads).tolist()):
        columns = [32 * part + 8 * unit + i for part in range(3) for i in range(8)]
        parts = [attention.c_attn.weight[:, columns], attention.c_attn.bias[columns]]
        parts.append(attention.c_proj.weight[8 * unit : 8 * unit + 8])
        assert value == pytest.approx(
            float(sum(p.detach().square().sum() for p in parts)) ** 0.5, rel=1e-5
        )


@pytest.mark.parametrize("importance", ["output", "gradient"])
def test_a_head_that_does_nothing_goes_first(importance: str) -> None:
    model, task = architecture("distilbert")
    zeroed(model, "distilbert.transformer.layer.1.attention.out_lin", 16, 8)
    before = logits(model, task)
    pruned, trace = HeadPrune(ratio=0.13, importance=importance).apply(
        copy.deepcopy(model), context(model, task)
    )
    assert trace.details["removed"] == {"distilbert.transformer.layer.1.attention": [2]}
    assert torch.allclose(logits(pruned, task), before, atol=1e-5)


def test_the_choice_by_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(50):
        scores = [torch.rand(n, generator=generator) for n in (4, 3, 6)]
        ratio = 0.1 + 0.015 * trial
        chosen = choose(scores, [1, 1, 1], ratio=ratio, spread="global")
        budget = min(int(13 * ratio + 0.5), 10)
        assert sum(map(len, chosen)) == budget
        assert all(len(c) < len(s) for c, s in zip(chosen, scores, strict=True))
        # No other legal choice of as many has a smaller sum.
        allowed = [
            [c for k in range(len(s)) for c in itertools.combinations(range(len(s)), k)]
            for s in scores
        ]
        best = (
            min(
                sum(float(s[list(c)].sum()) for s, c in zip(scores, choice, strict=True))
                for choice in itertools.product(*allowed)
                if sum(map(len, choice)) == budget
            )
            if trial % 10 == 0
            else None
        )
        if best is not None:
            got = sum(float(s[c].sum()) for s, c in zip(scores, chosen, strict=True))
            assert got == pytest.approx(best, abs=1e-6)


def test_every_layer_gives_its_share_but_its_last_head() -> None:
    scores = [torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([5.0, 4.0])]
    assert choose(scores, [1, 1], ratio=0.5, spread="per_layer") == [[1, 3], [1]]
    assert choose(scores, [1, 1], ratio=0.95, spread="per_layer") == [[1, 2, 3], [1]]
    assert choose(scores, [1, 1], ratio=0.01, spread="per_layer") == [[], []]


def test_a_unit_of_many_layers_counts_as_many() -> None:
    scores = [torch.tensor([0.0, 9.0, 9.0, 9.0]), torch.tensor([1.0, 2.0, 9.0])]
    assert choose(scores, [3, 1], ratio=2 / 15, spread="global") == [[], [0, 1]]
    assert choose(scores, [3, 1], ratio=4 / 15, spread="global") == [[0], [0]]
