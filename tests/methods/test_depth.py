"""Depth pruning: which blocks may go, which one goes, what is left."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sequences import sequence_problem
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.lowrank.modules import factored
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.prune.depth import TEMPERATURE, DepthPrune
from petra.methods.prune.stand_ins import stand_ins
from petra.model.description.differences import describe, rebuild, weights
from petra.model.description.state_hash import state_hash
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import call, named, prediction
from petra.testing.stage_suite import small_problem
from petra.workloads.resnet import CifarResNet

MODEL, TASK = small_problem()
CONTEXT = Context(task=TASK, teacher=MODEL, seed=1)


def droppable_blocks(model: nn.Module, example: Tensor) -> tuple[str, ...]:
    return tuple(stand_ins(model, example)[0])


def apart(task: Task, a: Tensor, b: Tensor) -> Tensor:
    """The distance of two predictions, as the stage takes it."""
    return task.distance().setting(temperature=TEMPERATURE)({"output": a}, {"output": b})


def test_the_blocks_of_a_resnet_that_keep_their_shape() -> None:
    found = droppable_blocks(CifarResNet(20).eval(), torch.randn(2, 3, 32, 32))
    expected = {"layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"}
    assert set(found) == expected


@pytest.mark.parametrize("per", ["block", "weight"])
def test_the_least_missed_block_goes_by_brute_force(per: str) -> None:
    """Against leaving every block out by hand and comparing predictions on the very same items."""
    model: Any = copy.deepcopy(MODEL)
    torch.manual_seed(0)
    model.block2.conv1, model.block2.bn1 = nn.Conv2d(16, 2, 3, padding=1), nn.BatchNorm2d(2).eval()
    model.block2.conv2 = nn.Conv2d(2, 16, 3, padding=1)
    context = Context(task=TASK, teacher=copy.deepcopy(model), seed=1)
    pruned, trace = DepthPrune(blocks=1, per=per).apply(copy.deepcopy(model), context)
    inputs, _ = next(TASK.train.batches(256, seed=context.seed_for("probe")))
    costs = {}
    with torch.no_grad():
        for name in ("block1", "block2", "block3"):
            without = copy.deepcopy(model)
            setattr(without, name, nn.Identity())
            distance = float(apart(TASK, without(inputs), model(inputs)))
            weights = sum(p.numel() for p in getattr(model, name).parameters())
            costs[name] = distance / (weights if per == "weight" else 1)
    assert trace.touched == (min(costs, key=costs.__getitem__),)
    assert isinstance(pruned.get_submodule(trace.touched[0]), nn.Identity)


class Branch(nn.Module):
    """A residual branch of `middle` channels through convolutions of `kernel` x `kernel`, scaled by
    `gain`.
    """

    def __init__(self, middle: int, kernel: int, gain: float) -> None:
        super().__init__()
        self.up = nn.Conv2d(8, middle, kernel, padding=kernel // 2, bias=False)
        self.down = nn.Conv2d(middle, 8, kernel, padding=kernel // 2, bias=False)
        self.down.weight.data *= gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.down(torch.relu(self.up(x)))
        return y


def test_distance_is_counted_per_what_is_saved() -> None:
    """Three blocks of which each is the cheapest by one of the three counts: the least missed; one
    of many activations and few weights; one of many weights and few activations.
    """
    torch.manual_seed(0)
    blocks = {"1": Branch(2, 1, 2.0), "2": Branch(64, 1, 1.5), "3": Branch(16, 5, 2.0)}
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        *blocks.values(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    context = Context(task=TASK, teacher=copy.deepcopy(model), seed=1)
    inputs, _ = next(TASK.train.batches(256, seed=context.seed_for("probe")))
    costs: dict[str, dict[str, float]] = {"block": {}, "activation": {}, "weight": {}}
    with torch.no_grad():
        for name, block in blocks.items():
            without = copy.deepcopy(model)
            setattr(without, name, nn.Identity())
            distance = float(apart(TASK, without(inputs), model(inputs)))
            middle, kernel = block.up.out_channels, block.up.kernel_size[0]
            costs["block"][name] = distance
            costs["activation"][name] = distance / (len(inputs) * (middle + 8) * 8 * 8)
            costs["weight"][name] = distance / (2 * 8 * middle * kernel**2)
    cheapest = {per: min(cost, key=cost.__getitem__) for per, cost in costs.items()}
    assert cheapest == {"block": "1", "activation": "2", "weight": "3"}
    for per, name in cheapest.items():
        _, trace = DepthPrune(blocks=1, per=per).apply(copy.deepcopy(model), context)
        assert trace.touched == (name,), per


def test_a_block_that_does_nothing_goes_first() -> None:
    model = copy.deepcopy(MODEL)
    nn.init.zeros_(model.block2.bn2.weight)  # type: ignore[union-attr, arg-type]
    nn.init.zeros_(model.block2.bn2.bias)  # type: ignore[union-attr, arg-type]
    context = Context(task=TASK, teacher=copy.deepcopy(model), seed=1)
    x = TASK.example(32)
    before = model(x)
    pruned, trace = DepthPrune(blocks=1).apply(copy.deepcopy(model), context)
    assert trace.touched == ("block2",)
    assert torch.allclose(pruned(x), before, atol=1e-6)


class Shift(nn.Module):
    """A block that adds `amount` to one feature, whatever the input."""

    def __init__(self, feature: int, amount: float) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.bias.copy_(amount * torch.eye(4)[feature])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.layer(x)
        return y


def test_what_is_left_is_measured_again_after_every_removal() -> None:
    """Blocks `1` and `2` do the same and either suffices, since their sum is squashed: alone they
    are the two least missed, but without the one the other is missed the most.
    """
    torch.manual_seed(0)
    head = nn.Linear(4, 4)
    with torch.no_grad():
        head.weight.copy_(3 * torch.eye(4))
    model = nn.Sequential(
        nn.Linear(6, 4), Shift(0, 4.0), Shift(0, 4.2), Shift(1, 1.0), nn.Tanh(), head
    ).eval()
    with torch.no_grad():
        model[0].weight *= 0.1
    x, y = torch.randn(64, 6), torch.arange(64) % 4
    context = Context(
        task=classification((x, y), (x, y), (x, y)), teacher=copy.deepcopy(model), seed=1
    )

    def missed(*gone: str) -> float:
        without = copy.deepcopy(model)
        for name in gone:
            setattr(without, name, nn.Identity())
        with torch.no_grad():
            return float(apart(context.task, without(x), model(x)))

    alone = {name: missed(name) for name in "123"}
    first, second, last = sorted(alone, key=alone.__getitem__)
    assert {first, second} == {"1", "2"}
    assert missed(first, last) < missed(first, second)
    _, trace = DepthPrune(blocks=2, per="block").apply(copy.deepcopy(model), context)
    assert trace.touched == (first, last)
    assert trace.details["distance"] == {
        name: pytest.approx(distance, rel=1e-3, abs=1e-6)
        for name, distance in ((first, alone[first]), (last, missed(first, last)))
    }


def test_as_many_go_as_asked_and_the_rest_have_a_reason() -> None:
    _, trace = DepthPrune(blocks=2).apply(copy.deepcopy(MODEL), CONTEXT)
    assert len(trace.touched) == 2
    assert len(trace.skipped) == 1
    assert not set(trace.touched) & set(trace.skipped)


def test_it_refuses_to_leave_no_block() -> None:
    with pytest.raises(StageRefused, match="3 blocks"):
        DepthPrune(blocks=3).apply(copy.deepcopy(MODEL), CONTEXT)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(StageRefused, match="0 blocks"):
        DepthPrune().apply(plain, CONTEXT)


def test_a_block_called_twice_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.block(self.block(x))
            return y

    assert droppable_blocks(Twice(), torch.randn(2, 4)) == ()


# -- transformers ----------------------------------------------------------------------------------


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
