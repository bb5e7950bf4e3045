"""Prefixes and prompts inside of Hugging Face's models, against the sums written out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from adapting import problem
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.adapt.prompting import attach_prompt
from petra.methods.adapt.stage import Adapt
from petra.methods.base import Context
from petra.model.layers.prefix import Prefix, Prefixed
from petra.model.layers.prompts import Appended, Prompt, Prompted
from petra.model.surgery import replace_module
from petra.tasks.inputs import call, main_output, predictions

LENGTH = 3


def prefix(heads: int, size: int) -> Prefix:
    g = torch.Generator().manual_seed(4)
    return Prefix(torch.randn(2, LENGTH, heads, size, generator=g))


def set_function(model: nn.Module, name: str) -> None:
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if config is not None:
            config._attn_implementation = name


def with_prefixes(name: str, path: str, function: str) -> tuple[nn.Module, Any]:
    """A model of the zoo with a prefix in the attention at `path` of every block."""
    model, task = problem(name)
    set_function(model, function)
    for at in [p for p, _ in model.named_modules() if p.endswith(f".{path}")]:
        layer: Any = model.get_submodule(at)
        heads = getattr(layer.config, "num_key_value_heads", None) or 4
        replace_module(model, at, Prefixed(layer, prefix(heads, 8)))
    return model, task


@pytest.mark.parametrize("function", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [False, True])
def test_prefix_attention_by_hand(function: str, masked: bool) -> None:
    model, _ = problem("bert")
    set_function(model, function)
    layer: Any = model.bert.encoder.layer[0].attention.self
    module = Prefixed(layer, prefix(4, 8))
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(5))
    mask = torch.zeros(2, 1, 5, 5)
    if masked:
        mask[1, ..., 3:] = torch.finfo(torch.float32).min

    def by_hand(x: Tensor) -> Tensor:
        q, k, v = (
            (x @ p.weight.T + p.bias).unflatten(-1, (4, 8))
            for p in (layer.query, layer.key, layer.value)
        )
        before_k, before_v = (s.expand(2, -1, -1, -1) for s in module.insert.states)
        scores = torch.einsum("nihd,njhd->nhij", q, torch.cat([before_k, k], 1)) / 8**0.5
        scores = scores + torch.cat([torch.zeros(2, 1, 5, LENGTH), mask], -1)
        mixed = torch.einsum("nhij,njhd->nihd", scores.softmax(-1), torch.cat([before_v, v], 1))
        return mixed.flatten(2)

    found = []
    for function_of in (lambda x: module(x, mask if masked else None)[0], by_hand):
        module.zero_grad()
        given = x.clone().requires_grad_()
        result = function_of(given)
        result.sin().sum().backward()
        found.append([result.detach(), given.grad, *(p.grad.clone() for p in module.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert layer.config._attn_implementation == function, "put back"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("llama", "self_attn"),
        pytest.param("gpt2", "attn", marks=pytest.mark.slow),
        pytest.param("vit", "attention", marks=pytest.mark.slow),
        pytest.param("distilbert", "attention", marks=pytest.mark.slow),
    ],
)
def test_both_functions_of_a_model_agree_with_prefixes(name: str, path: str) -> None:
    """One makes a mask of its own for causal models, the other counts on a flag."""
    results = []
    for function in ("sdpa", "eager"):
        model, task = with_prefixes(name, path, function)
        with torch.no_grad():
            results.append(main_output(predictions(call(model, task.example(4)))))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    plain, task = problem(name)
    with torch.no_grad():
        before = main_output(predictions(call(plain, task.example(4))))
    assert (results[0] - before).abs().max() > 1e-3


def test_a_causal_model_with_a_prefix_stays_causal() -> None:
    model, _ = with_prefixes("llama", "self_attn", "sdpa")
    ids = torch.arange(2, 10)[None]
    other = ids.clone()
    other[0, -1] = 15
    with torch.no_grad():
        one, two = (model.model(input_ids=t).last_hidden_state for t in (ids, other))
    assert torch.allclose(one[:, :-1], two[:, :-1], atol=1e-6)
    assert not torch.allclose(one[:, -1], two[:, -1], atol=1e-3)


def test_a_prefix_is_refused_by_name_where_attention_is_the_models_own() -> None:
    model, task = problem("deberta-v2")
    stage = Adapt(lora=0, prefix=2, epochs=1)
    with pytest.raises(StageRefused, match=r"layer 'deberta\.encoder\.layer\.0.*own code"):
        stage.apply(model, Context(task=task, teacher=model, seed=0))


# -- prompts ---------------------------------------------------------------------------------------


def prompted(name: str, block: str) -> tuple[nn.Module, Any, str]:
    model, task = problem(name)
    path = attach_prompt(model, task.example(2), block, LENGTH, torch.Generator().manual_seed(0))
    return model, task, path


def test_a_prompt_stands_before_the_embedded_tokens() -> None:
    model, task, path = prompted("bert", "bert.encoder.layer.0")
    assert path == "bert"
    inputs = task.example(4)
    plain, _ = problem("bert")
    base = plain.bert
    embedded = base.embeddings.word_embeddings(inputs["input_ids"])
    around: Any = model.bert
    assert isinstance(around, Prompted)
    tokens = {tuple(row.tolist()) for row in base.embeddings.word_embeddings.weight}
    assert {tuple(row.tolist()) for row in around.insert.states} <= tokens, "drawn tokens"
    longer = torch.cat([around.insert.states.expand(4, -1, -1), embedded], 1)
    mask = torch.cat([torch.ones(4, LENGTH, dtype=torch.long), inputs["attention_mask"]], 1)
    with torch.no_grad():
        states = base(inputs_embeds=longer, attention_mask=mask).last_hidden_state[:, LENGTH:]
        expected = plain.classifier(base.pooler(states))
        torch.testing.assert_close(main_output(predictions(call(model, inputs))), expected)


@pytest.mark.parametrize(
    ("name", "block", "where", "around"),
    [
        ("llama", "model.layers.0", "model", Prompted),
        pytest.param("gpt2", "transformer.h.0", "transformer", Prompted, marks=pytest.mark.slow),
        pytest.param("t5", "model.encoder.block.0", "model.encoder", Prompted,
                     marks=pytest.mark.slow),
        pytest.param("albert", "albert.encoder.albert_layer_groups.0.albert_layers.0", "albert",
                     Prompted, marks=pytest.mark.slow),
        pytest.param("deberta-v2", "deberta.encoder.layer.0", "deberta", Prompted,
                     marks=pytest.mark.slow),
        ("vit", "vit.layers.0", "vit.embeddings", Appended),
    ],
)  # fmt: skip
def test_prompts_get_gradients_and_leave_the_shape(
    name: str, block: str, where: str, around: type[nn.Module]
) -> None:
    plain, task = problem(name)
    inputs = task.example(4)
    expected = main_output(predictions(call(copy.deepcopy(plain), inputs)))
    model, _, path = prompted(name, block)
    assert path == where
    assert type(model.get_submodule(path)) is around
    output = main_output(predictions(call(model, inputs)))
    assert output.shape == expected.shape
    assert (output - expected).abs().max() > 1e-4
    output.sum().backward()
    (prompt,) = [m for m in model.modules() if isinstance(m, Prompt)]
    assert prompt.states.grad is not None
    assert prompt.states.grad.abs().sum(1).min() > 0
