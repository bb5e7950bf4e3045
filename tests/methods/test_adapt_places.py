"""Where modules belong in transformers of every make, and how that is found out."""

from __future__ import annotations

import pytest
import torch
from adapting import problem
from torch import Tensor, nn

from petra.methods.adapt.head import head_of
from petra.methods.adapt.places import Attending, find_places
from petra.methods.adapt.sizes import blocks_of, ladder, sizes_of, width_of
from petra.model.description.state_hash import state_hash
from petra.model.outline import outline_of

# block, query, key, value, output, the first layers of the network, its last one; inside the block
PLACES = {
    "bert": (
        "bert.encoder.layer.1", "attention.self.query", "attention.self.key",
        "attention.self.value", "attention.output.dense", ["intermediate.dense"], "output.dense",
    ),
    "roberta": (
        "roberta.encoder.layer.0", "attention.self.query", "attention.self.key",
        "attention.self.value", "attention.output.dense", ["intermediate.dense"], "output.dense",
    ),
    "distilbert": (
        "distilbert.transformer.layer.0", "attention.q_lin", "attention.k_lin", "attention.v_lin",
        "attention.out_lin", ["ffn.lin1"], "ffn.lin2",
    ),
    "albert": (
        "albert.encoder.albert_layer_groups.0.albert_layers.0", "attention.query", "attention.key",
        "attention.value", "attention.dense", ["ffn"], "ffn_output",
    ),
    "deberta-v2": (
        "deberta.encoder.layer.1", "attention.self.query_proj", "attention.self.key_proj",
        "attention.self.value_proj", "attention.output.dense", ["intermediate.dense"],
        "output.dense",
    ),
    "gpt2": (
        "transformer.h.0", "attn.c_attn", "attn.c_attn", "attn.c_attn", "attn.c_proj",
        ["mlp.c_fc"], "mlp.c_proj",
    ),
    "llama": (
        "model.layers.1", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
        "self_attn.o_proj", ["mlp.gate_proj", "mlp.up_proj"], "mlp.down_proj",
    ),
    "vit": (
        "vit.layers.0", "attention.q_proj", "attention.k_proj", "attention.v_proj",
        "attention.o_proj", ["mlp.fc1"], "mlp.fc2",
    ),
    "t5": (
        "model.encoder.block.1", "layer.0.SelfAttention.q", "layer.0.SelfAttention.k",
        "layer.0.SelfAttention.v", "layer.0.SelfAttention.o", ["layer.1.DenseReluDense.wi"],
        "layer.1.DenseReluDense.wo",
    ),
}  # fmt: skip
HEADS = {
    "bert": {"bert.pooler.dense", "classifier"},
    "distilbert": {"pre_classifier", "classifier"},
    "gpt2": {"transformer.ln_f", "score"},
    "llama": {"model.norm", "score"},
    "t5": {"model.decoder.final_layer_norm", "classifier"},
}
FAST = ("bert", "llama")


def entries(names: object) -> list[object]:
    return [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in names]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", entries(PLACES))
def test_places_of(name: str) -> None:
    model, task = problem(name)
    before = state_hash(model)
    blocks = blocks_of(outline_of(model))
    found, refused = find_places(model, task.example(2), blocks)
    assert refused == {}
    assert list(found) == blocks
    block, query, key, value, output, first, last = PLACES[name]
    places = found[block]  # type: ignore[index]
    attending = places.attentions[0]
    layers = (attending.query, attending.key, attending.value, attending.output)
    assert layers == tuple(f"{block}.{p}" for p in (query, key, value, output))
    assert list(places.first) == [f"{block}.{p}" for p in first]
    assert places.last == f"{block}.{last}"
    assert places.width == 32
    assert (attending.heads, attending.size) == {
        "deberta-v2": (0, 0), "llama": (2, 8)
    }.get(name, (4, 8))  # fmt: skip
    assert state_hash(model) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.slow
def test_a_decoder_has_two_attentions() -> None:
    model, task = problem("t5")
    found, _ = find_places(model, task.example(2), ["model.decoder.block.0"])
    names = [a.path for a in found["model.decoder.block.0"].attentions]
    assert [n.rpartition(".")[2] for n in names] == ["SelfAttention", "EncDecAttention"]


@pytest.mark.parametrize("name", entries(HEADS))
def test_the_head_of(name: str) -> None:
    model, task = problem(name)
    blocks = blocks_of(outline_of(model))
    assert set(head_of(model, task.example(2), blocks)) == HEADS[name]


def test_a_tied_weight_is_no_heads() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block = nn.Embedding(9, 4), nn.Linear(4, 4)
            self.norm, self.out = nn.LayerNorm(4), nn.Linear(4, 9, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(self.block(self.embed(x))))

    assert head_of(Tied(), torch.zeros(2, 3, dtype=torch.long), ["block"]) == ("norm",)


class Blocks(nn.Module):
    """Blocks of which none, or one, can be made out."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(torch.relu(self.up(x)))

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([self.Plain(), self.Plain()])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[1](self.blocks[0](x))


def test_what_cannot_be_made_out_has_a_reason() -> None:
    found, refused = find_places(Blocks(), torch.randn(2, 4), ["blocks.0", "blocks.7"])
    assert not found
    assert refused == {
        "blocks.0": "no attention was seen in it",
        "blocks.7": "it is not called, or no longer there",
    }


def test_the_models_own_attention_is_read_by_names() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries, self.keys, self.values = (nn.Linear(4, 4) for _ in range(3))
            self.mix, self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.queries(x) @ self.keys(x).transpose(1, 2)
            x = x + self.mix(torch.softmax(scores, -1) @ self.values(x))
            return x + self.down(torch.relu(self.up(x)))

    model = nn.Sequential(nn.Linear(4, 4), Own())
    found, refused = find_places(model, torch.randn(2, 3, 4), ["1"])
    assert not refused
    assert found["1"].attentions == (Attending("1.queries", "1.keys", "1.values", "1.mix"),)
    assert (found["1"].first, found["1"].last) == (("1.up",), "1.down")
    assert set(found["1"].biased) == {f"1.{n}" for n, _ in model[1].named_children()}


def test_sizes_are_those_published() -> None:
    assert ladder(768) == (0, 1, 3, 6, 12, 24, 48, 96, 192, 384, 768)
    assert ladder(1024) == (0, 1, 3, 6, 12, 24, 48, 96, 192, 384, 512, 1024)
    assert ladder(4) == ladder(0) == (0, 1, 3, 6)
    outline = outline_of(problem("bert")[0])
    assert width_of(outline) == 32
    assert sizes_of(outline).values == (0, 1, 3, 6, 12, 16, 32)
    assert blocks_of(outline) == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    assert blocks_of(outline_of(nn.Linear(3, 3))) == []
