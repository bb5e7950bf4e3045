"""Attention whose heads stay, with the reason; what stands for its layers, and ships."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from headed_parts import architecture, context, logits
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.prune.head_cut import closed_gate
from petra.methods.prune.heads import (
    HeadPrune,
)
from petra.model.attention.find import find_heads
from petra.model.attention.heads import take_out
from petra.model.attention.separate import HeadwiseAttention, separate_attention
from petra.model.description.differences import describe, rebuild, weights
from petra.model.description.state_hash import state_hash
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.classification import classification
from petra.tasks.inputs import call, named, prediction

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
