"""Head pruning: cuts against projections zeroed by hand on many architectures, scores and choice by
brute force.
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from sequences import sequence_problem
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.prune.head_cut import closed_gate, find_bundles
from petra.methods.prune.heads import (
    TEMPERATURE,
    HeadPrune,
    choose,
    gate_gradients,
    magnitude,
)
from petra.methods.prune.statistics import SMOOTHING
from petra.model.attention.find import find_heads
from petra.model.attention.heads import gated, take_out
from petra.model.attention.separate import HeadwiseAttention, separate_attention
from petra.model.description.differences import describe, rebuild, weights
from petra.model.description.state_hash import state_hash
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import call, map_inputs, named, prediction

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


def architecture(name: str) -> tuple[nn.Module, Task]:
    if name == "torch":
        return sequence_problem()
    pytest.importorskip("transformers")
    from petra.testing.architectures import hugging_face

    model, task = getattr(hugging_face, name)()
    return model, task


def context(model: nn.Module, task: Task) -> Context:
    return Context(task=task, teacher=model, seed=1)


def logits(model: nn.Module, task: Task, n: int = 6) -> Tensor:
    with torch.no_grad():
        return prediction(call(model, task.example(n)))


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


# -- refusals --------------------------------------------------------------------------------------


def test_what_has_no_heads_is_refused() -> None:
    x, y = torch.randn(8, 3, 9, 9), torch.randint(0, 5, (8,))
    model, task = zoo.Residual().eval(), classification((x, y), (x, y), (x, y))
    with pytest.raises(StageRefused, match="no attention layer"):
        HeadPrune().apply(model, context(model, task))


class CountedOn(nn.Module):
    """Attention whose heads are put together by the width of the stream: with one head less they do
    not fill it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.width = 4, 4, 16
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.head((x + self.out(attended.reshape(n, t, self.width))).mean(1))


def test_heads_counted_on_by_the_models_code_are_refused_with_the_reason() -> None:
    model, x, y = nn.Sequential(CountedOn()).eval(), zoo.rows(32, 5, 16), torch.arange(32) % 3
    task = classification((x, y), (x, y), (x, y))
    before = state_hash(model)
    with pytest.raises(StageRefused, match="no longer runs"):
        HeadPrune().apply(model, context(model, task))
    assert state_hash(model) == before


def test_a_ratio_that_rounds_to_nothing_is_refused() -> None:
    model, task = architecture("distilbert")
    with pytest.raises(StageRefused, match="rounds to no head"):
        HeadPrune(ratio=0.01, importance="magnitude").apply(
            copy.deepcopy(model), context(model, task)
        )


def test_tied_projections_are_skipped() -> None:
    model, task = architecture("distilbert")
    layers: Any = model.get_submodule("distilbert.transformer.layer")
    layers[0].attention.k_lin.weight = layers[0].attention.q_lin.weight
    _, trace = HeadPrune(ratio=0.5, importance="magnitude").apply(
        copy.deepcopy(model), context(model, task)
    )
    assert trace.touched == ("distilbert.transformer.layer.1.attention",)
    assert "shares a weight" in trace.skipped["distilbert.transformer.layer.0.attention"]


def test_removing_can_be_undone() -> None:
    model, task = architecture("gpt2")
    before = state_hash(model)
    found, _ = find_heads(model, lambda m: [prediction(call(m, task.example(2)))])
    undos = [take_out(model, readings[0], [1, 2]) for readings in found.values()]
    assert state_hash(model) != before
    for undo in undos:
        undo()
    assert state_hash(model) == before
    assert closed_gate(next(iter(found.values()))[0], [1]).tolist() == [1, 0, 1, 1]


# -- the module in the place of nn.MultiheadAttention ----------------------------------------------


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", ["none", "bool", "float", "per head"])
def test_headwise_attention_computes_what_torchs_does(
    batch_first: bool, need_weights: bool, masks: str
) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, batch_first=batch_first, kdim=12, vdim=10).eval()
    nn.init.normal_(theirs.in_proj_bias)
    ours = HeadwiseAttention(theirs).eval()
    q, k, v = torch.randn(3, 5, 16), torch.randn(3, 7, 12), torch.randn(3, 7, 10)
    keep_out = torch.rand(5, 7) < 0.3
    keep_out[:, 0] = False
    padding = torch.tensor([[False] * 7, [False] * 5 + [True] * 2, [False] * 6 + [True]])
    extra: dict[str, Tensor] = {}
    if masks == "bool":
        extra = {"attn_mask": keep_out, "key_padding_mask": padding}
    elif masks == "float":
        extra = {"attn_mask": torch.randn(5, 7)}
    elif masks == "per head":
        extra = {"attn_mask": torch.randn(12, 5, 7)}
    if not batch_first:
        q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
    for average in (True, False):
        a, wa = theirs(q, k, v, need_weights=need_weights, average_attn_weights=average, **extra)
        b, wb = ours(q, k, v, need_weights=need_weights, average_attn_weights=average, **extra)
        assert torch.allclose(a, b, atol=1e-6)
        assert (wa is None) == (wb is None)
        if wa is not None:
            assert torch.allclose(wa, wb, atol=1e-6)


def test_headwise_attention_without_a_batch_or_biases() -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 2, bias=False).eval()
    ours = HeadwiseAttention(theirs).eval()
    x = torch.randn(5, 16)
    assert torch.allclose(theirs(x, x, x)[0], ours(x, x, x)[0], atol=1e-6)
    assert ours.q_proj.bias is None


def test_zeros_that_are_kept_are_still_kept() -> None:
    model = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2)})
    model["a"].out_proj.keep_zeros = True  # type: ignore[union-attr]
    separate_attention(model)
    assert model["a"].out_proj.keep_zeros is True  # type: ignore[union-attr]


def test_attention_with_extra_keys_stays_torchs() -> None:
    model = nn.ModuleDict(
        {"a": nn.MultiheadAttention(8, 2, add_zero_attn=True), "b": nn.MultiheadAttention(8, 2)}
    )
    put_back, refused = separate_attention(model)
    assert list(refused) == ["a"]
    assert isinstance(model["b"], HeadwiseAttention)
    put_back()
    assert isinstance(model["b"], nn.MultiheadAttention)


# -- what is left ships ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torch", "gpt2", "swin"])
def test_a_pruned_model_can_be_written_down_and_made_again(name: str) -> None:
    model, task = architecture(name)
    pruned, _ = HeadPrune(ratio=0.4, importance="magnitude").apply(
        copy.deepcopy(model), context(model, task)
    )
    again = rebuild(model, describe(pruned, model), weights(pruned))
    assert state_hash(again) == state_hash(pruned)
    assert torch.equal(logits(again, task), logits(pruned, task))


@pytest.mark.parametrize("name", ["bert", "torch"])
def test_a_pruned_model_ships_at_any_batch(name: str, tmp_path: Path) -> None:
    model, task = architecture(name)
    pruned, _ = HeadPrune(ratio=0.4).apply(copy.deepcopy(model), context(model, task))
    (path,) = OnnxRuntime().export(pruned, task.example(2), tmp_path / "model.onnx")
    session = OnnxRuntime().load(path)
    for n in (1, 5):
        outputs = session.run({k: v.numpy() for k, v in named(task.example(n)).items()})
        got = outputs.get("logits", next(iter(outputs.values())))
        assert np.allclose(got, logits(pruned, task, n).numpy(), atol=1e-4)
