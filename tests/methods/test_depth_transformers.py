"""Depth pruning of transformers: whole layers, halves of them, layers that hand results through."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from depth_parts import droppable_blocks
from sequences import sequence_problem
from torch import nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.lowrank.modules import factored
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.prune.depth import DepthPrune
from petra.methods.prune.stand_ins import stand_ins
from petra.model.description.differences import describe, rebuild, weights
from petra.model.description.state_hash import state_hash
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.base import Task
from petra.tasks.inputs import call, named, prediction


def architecture(name: str) -> tuple[nn.Module, Task]:
    pytest.importorskip("transformers")
    from petra.testing.architectures import hugging_face

    model, task = getattr(hugging_face, name)()
    return model, task


LAYERS = {
    "bert": {"bert.encoder.layer.0", "bert.encoder.layer.1"},
    "distilbert": {"distilbert.transformer.layer.0", "distilbert.transformer.layer.1"},
    "deberta_v2": {"deberta.encoder.layer.0", "deberta.encoder.layer.1"},
    "gpt2": {"transformer.h.0", "transformer.h.1"},
    "llama": {"model.layers.0", "model.layers.1"},
    "vit": {"vit.layers.0", "vit.layers.1"},
    "whisper": {"encoder.layers.0", "encoder.layers.1"},
    "bart": {f"model.{side}.layers.{i}" for side in ("encoder", "decoder") for i in (0, 1)},
    # The first layer of each stack computes the position biases of all, so only its feed-forward
    # half can go.
    "t5": {
        *("model.encoder.block.0.layer.1", "model.encoder.block.1"),
        *("model.decoder.block.0.layer.2", "model.decoder.block.1"),
    },
}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_whole_transformer_layers_can_go(name: str) -> None:
    model, task = architecture(name)
    assert set(droppable_blocks(model, task.example(2))) == LAYERS[name]


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_factors_are_no_block(name: str) -> None:
    """Bert's pooler keeps its input's shape, but is one layer, also when it has become two."""
    model, task = architecture(name)
    before = set(droppable_blocks(model, task.example(2)))
    context = Context(task=task, teacher=copy.deepcopy(model), seed=1)
    lower, trace = SVDDecompose(rule="ratio", ratio=0.3).apply(model, context)
    assert len(trace.touched) > 3
    assert set(droppable_blocks(lower, task.example(2))) == before


def test_a_block_whose_layer_became_factors_is_the_block_still() -> None:
    block = nn.Sequential(
        factored(nn.Linear(8, 8), [torch.randn(8, 2), torch.randn(2, 8)], "channel"), nn.ReLU()
    )
    model = nn.Sequential(nn.Linear(4, 8), block, nn.Linear(8, 3)).eval()
    assert droppable_blocks(model, torch.randn(2, 4)) == ("1",)


@pytest.mark.parametrize("name", ["bert", "gpt2", "deberta_v2", "bart"])
def test_without_a_layer_a_model_computes_what_it_does_when_it_never_had_it(name: str) -> None:
    model, task = architecture(name)
    pruned, trace = DepthPrune(blocks=1).apply(
        copy.deepcopy(model), Context(task=task, teacher=model, seed=1)
    )
    (path,) = trace.touched
    shorter = copy.deepcopy(model)
    stack, _, number = path.rpartition(".")
    del shorter.get_submodule(stack)[int(number)]  # type: ignore[operator]
    with torch.no_grad():
        got, expected = (prediction(call(m, task.example(5))) for m in (pruned, shorter))
    assert torch.equal(got, expected)
    again = rebuild(model, describe(pruned, model), weights(pruned))
    assert state_hash(again) == state_hash(pruned)


def test_layers_that_are_one_layer_are_refused_with_the_reason() -> None:
    model, task = architecture("albert")
    with pytest.raises(StageRefused, match=r"albert_layer_groups\.0 is called more than once"):
        DepthPrune().apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=1))


def test_torchs_encoder_layers_can_go() -> None:
    model, task = sequence_problem()
    assert droppable_blocks(model, task.example(2)) == ("encoder.layers.0", "encoder.layers.1")
    # torch's encoder looks at its first layer before it runs, so that one is found to be needed.
    pruned, trace = DepthPrune().apply(
        copy.deepcopy(model), Context(task=task, teacher=model, seed=1)
    )
    assert trace.touched == ("encoder.layers.1",)
    assert "no longer runs" in trace.skipped["encoder.layers.0"]
    shorter = copy.deepcopy(model)
    del shorter.encoder.layers[1]  # type: ignore[union-attr, operator]
    assert torch.allclose(call(pruned, task.example(4)), call(shorter, task.example(4)), atol=1e-6)


def test_a_shortened_transformer_ships_at_any_batch(tmp_path: Path) -> None:
    model, task = architecture("bert")
    pruned, _ = DepthPrune(blocks=1).apply(
        copy.deepcopy(model), Context(task=task, teacher=model, seed=1)
    )
    (path,) = OnnxRuntime().export(pruned, task.example(2), tmp_path / "model.onnx")
    session = OnnxRuntime().load(path)
    for n in (1, 5):
        (got,) = session.run({k: v.numpy() for k, v in named(task.example(n)).items()}).values()
        with torch.no_grad():
            assert np.allclose(got, prediction(call(pruned, task.example(n))).numpy(), atol=1e-4)


def test_results_that_are_handed_through_are_still_handed_through() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self.kind = "full"

        def forward(
            self, x: torch.Tensor, bias: torch.Tensor | None = None, *, scale: torch.Tensor
        ) -> tuple[object, ...]:
            return x + self.body(x) * scale, bias, None

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Layer() for _ in range(3))
            self.bias = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bias = self.bias
            for layer in self.layers:
                assert layer.kind == "full"
                x, bias, nothing = layer(x, bias, scale=torch.tensor(2.0))
                assert nothing is None
            return x + bias

    torch.manual_seed(0)
    model = Net().eval()
    found, _ = stand_ins(model, torch.randn(2, 4))
    assert list(found) == ["layers.0", "layers.1", "layers.2"]
    expected = copy.deepcopy(model)
    del expected.layers[1]
    model.layers[1] = found["layers.1"]
    x = torch.randn(3, 4)
    assert torch.equal(model(x), expected(x))
