"""Distillation of attention maps."""

from __future__ import annotations

import copy

import pytest
import torch
from attending_models import IDS, WORDS, Encoder, bert
from distilled_parts import G, names
from torch import Tensor, nn

from petra.methods.base import Context
from petra.methods.distill.attention import (
    are_probabilities,
    attention_shown,
    spatial_attention,
)
from petra.methods.distill.distill import Distill
from petra.methods.distill.features import matched, relative_distance, tapped

# -- attention -------------------------------------------------------------------------------------


def test_spatial_attention_by_loops() -> None:
    features = torch.randn(2, 3, 2, 2, generator=G)
    got = spatial_attention(features)
    for item, image in zip(got, features, strict=True):
        energy = [
            [sum(float(image[c, i, j]) ** 2 for c in range(3)) for j in range(2)] for i in range(2)
        ]
        norm = sum(v * v for row in energy for v in row) ** 0.5
        assert item.flatten().tolist() == pytest.approx(
            [v / norm for row in energy for v in row], rel=1e-5
        )
    assert torch.isfinite(spatial_attention(torch.zeros(1, 2, 3))).all()


def test_what_looks_like_attention() -> None:
    maps = torch.softmax(torch.randn(2, 3, 4, 5, generator=G), -1)
    assert are_probabilities(maps)
    assert not are_probabilities(maps + 0.01)
    assert not are_probabilities(maps[0])
    assert not are_probabilities(
        torch.stack([2 * maps[..., 0], maps[..., 1:].sum(-1) - maps[..., 0]], -1) * 1.5
    )
    assert not are_probabilities(torch.ones(2, 3, 4, 1))


def maps_by_hand(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) from the projection weights."""
    q, k, _ = (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
    heads, size = attention.num_heads, attention.head_dim
    q, k = (t.unflatten(-1, (heads, size)).transpose(1, 2) for t in (q, k))
    return torch.softmax(q @ k.transpose(-1, -2) / size**0.5, -1)


def test_torch_attention_shows_its_maps_inside_and_only_there() -> None:
    torch.manual_seed(0)
    model = Encoder().eval()
    first = model.encoder.layers[0].self_attn
    before = model(IDS[:4])
    assert matched(model, model, IDS[:4], kind="attention") == ()
    with attention_shown(model):
        pairs = matched(model, model, IDS[:4], kind="attention")
        assert names(pairs) == ["encoder.layers.0.self_attn", "encoder.layers.1.self_attn"]
        with tapped(model, model, pairs) as (own, _), torch.no_grad():
            got = model(IDS[:4])
            assert torch.allclose(
                own.outputs()[0], maps_by_hand(first, model.table(IDS[:4])), atol=1e-6
            )
    assert torch.allclose(before, got, atol=1e-5)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_hugging_face_models_show_their_maps_inside_and_only_there() -> None:
    model = bert()
    with torch.no_grad():
        before = model(IDS[:4]).logits
    assert model.config._attn_implementation == "sdpa"
    with attention_shown(model):
        pairs = matched(model, model, IDS[:4], kind="attention", match="shape")
        with tapped(model, model, pairs) as (own, _), torch.no_grad():
            got = model(IDS[:4])
    with attention_shown(model), torch.no_grad():
        expected = model(IDS[:4], output_attentions=True).attentions
    assert len(pairs) == len(expected) == 2
    assert all(torch.equal(a, b) for a, b in zip(own.outputs(), expected, strict=True))
    assert torch.allclose(before, got.logits, atol=1e-5)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("make", [Encoder, bert])
def test_attention_maps_are_learnt_from_the_teacher(make: type[nn.Module]) -> None:
    """Student and teacher with other weights; the distance of their maps falls further than with
    logits alone.
    """
    teacher, student = make(), make()
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p))))
    distances = []
    for weight in (0.0, 3.0):
        stage = Distill(
            epochs=6,
            lr=0.01,
            optimizer="adamw",
            batch_size=32,
            features=weight,
            features_kind="attention",
        )
        result, trace = stage.apply(
            copy.deepcopy(student), Context(task=WORDS, teacher=teacher, seed=1)
        )
        assert bool(trace.details["blocks_matched"]) == bool(weight)
        with attention_shown(result, teacher):
            pairs = matched(result, teacher, IDS[:2], kind="attention")
            with tapped(result, teacher, pairs) as (own, theirs), torch.no_grad():
                result(IDS), teacher(IDS)
                distances.append(float(relative_distance(own.outputs(), theirs.outputs())))
    assert distances[1] < 0.7 * distances[0]
