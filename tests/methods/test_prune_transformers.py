"""Structured pruning of Hugging Face's models: the widths of their feed-forward layers, with
reasons for the rest.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petra.methods.base import Context
from petra.methods.prune.structured import StructuredPrune
from petra.model.description.differences import describe, rebuild, weights
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs, call, map_inputs, named_outputs

transformers = pytest.importorskip("transformers")

TEXT: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
IMAGE: dict[str, Any] = {"image_size": 16, "num_channels": 3, "num_labels": 3}


def text(n: int) -> Inputs:
    ids = torch.randint(1, 40, (n, 7), generator=torch.Generator().manual_seed(n))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def image(n: int) -> Inputs:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(n))


def bert() -> nn.Module:
    config = transformers.BertConfig(**TEXT, intermediate_size=32, num_labels=3)
    return transformers.BertForSequenceClassification(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        **TEXT, intermediate_size=32, num_key_value_heads=1, num_labels=3, pad_token_id=0
    )
    return transformers.LlamaForSequenceClassification(config)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_inner=32, num_labels=3, pad_token_id=0
    )
    return transformers.GPT2ForSequenceClassification(config)


def vit() -> nn.Module:
    config = transformers.ViTConfig(
        **IMAGE,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        patch_size=8,
    )
    return transformers.ViTForImageClassification(config)


# model, inputs, names of the layers that may narrow (the ends of their paths) and of some that may
# not
MODELS: dict[str, tuple[Any, Any, tuple[str, ...], tuple[str, ...]]] = {
    "bert": (bert, text, ("intermediate.dense",), ("query", "classifier", "output.dense")),
    "llama": (llama, text, ("gate_proj", "up_proj"), ("q_proj", "o_proj", "down_proj", "score")),
    "gpt2": (gpt2, text, ("mlp.c_fc",), ("c_attn", "mlp.c_proj", "score")),
    "vit": (vit, image, (), ("projection", "classifier")),
}


def task_of(inputs: Any) -> Task:
    def split(n: int) -> tuple[Any, Tensor]:
        return inputs(n), torch.arange(n) % 3

    return classification(split(8), split(4), split(4))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("kind", ["magnitude", "group_taylor"])
def test_feed_forward_widths_are_cut_and_nothing_else_changes(name: str, kind: str) -> None:
    make, inputs, cut, kept = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    stage = StructuredPrune(importance=kind, ratio=0.5, round_to=4)
    pruned, trace = stage.apply(
        copy.deepcopy(model), Context(task=task_of(inputs), teacher=model, seed=0)
    )
    channels = trace.details["channels"]
    assert channels
    for end in cut:
        assert any(path.endswith(end) for path in channels), (end, trace.skipped)
    for end in kept:
        assert not any(path.endswith(end) for path in channels)
        assert any(
            path.endswith(end) for path in {**trace.skipped, **trace.details["outputs_kept"]}
        )
    for n in (1, 3):
        got, expected = (named_outputs(call(m, inputs(n))) for m in (pruned, model))
        assert {k: t.shape for k, t in got.items()} == {k: t.shape for k, t in expected.items()}
    again = rebuild(model, describe(pruned, model), weights(pruned)).eval()
    x = map_inputs(inputs(3), lambda t: t)
    for a, b in zip(
        named_outputs(call(again, x)).values(), named_outputs(call(pruned, x)).values(), strict=True
    ):
        assert torch.equal(a, b)


def test_gpt2_computes_what_silenced_channels_leave() -> None:
    """Its layers keep their weights as (inputs, outputs)."""
    torch.manual_seed(0)
    model = gpt2().eval()
    stage = StructuredPrune(ratio=0.5, round_to=1, spread="per_layer")
    pruned, _ = stage.apply(
        copy.deepcopy(model), Context(task=task_of(text), teacher=model, seed=0)
    )
    for i in range(2):
        full, thin = model.transformer.h[i].mlp, pruned.transformer.h[i].mlp
        assert thin.c_fc.weight.shape == (16, 16)
        assert (thin.c_fc.nf, thin.c_proj.nx) == (16, 16)
        left = {tuple(column.tolist()) for column in thin.c_fc.weight.T}
        gone = [
            j for j, column in enumerate(full.c_fc.weight.T) if tuple(column.tolist()) not in left
        ]
        norms = full.c_fc.weight.norm(dim=0)
        assert sorted(gone) == sorted(norms.argsort()[:16].tolist())
        full.c_proj.weight.data[gone] = 0
    torch.testing.assert_close(pruned(**text(3)).logits, model(**text(3)).logits)
