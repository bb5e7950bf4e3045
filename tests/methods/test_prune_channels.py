"""The weights that go with a channel: exactly those that a cut removes, and penalties on them
prepare for it.
"""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from cut_parts import zoo_model
from pruned_parts import build
from torch import Tensor, nn

from petra.methods.base import Context
from petra.methods.prune.structured import StructuredPrune
from petra.methods.tune.tune import Tune
from petra.model.channels.cut import cut
from petra.model.channels.graph import ChannelGraph
from petra.model.channels.groups import find_groups
from petra.model.channels.weights import ChannelWeights, channel_weights
from petra.model.surgery import differentiable
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs
from petra.training.loop import predict
from petra.workloads.digits import DigitsNet


def weights_of(model: nn.Module, example: Inputs) -> list[ChannelWeights]:
    return channel_weights(model, example, generator=torch.Generator().manual_seed(0))


def squares(model: nn.Module) -> float:
    """Sum of all squared weights and gains, without biases."""
    return sum(
        float(p.detach().double().square().sum())
        for n, p in model.named_parameters()
        if n.endswith("weight")
    )


@zoo_model
def test_a_row_holds_the_weights_that_a_cut_removes(name: str) -> None:
    """The first and the last unit of every group, cut out alone: its row's square is what the
    weights' squares lose.
    """
    model, inputs, _ = build(name)
    state = copy.deepcopy(model.state_dict())
    found = weights_of(model, inputs(2))
    groups, _ = find_groups(model, inputs(2), generator=torch.Generator().manual_seed(0))
    assert [w.layers for w in found] == [g.layers for g in groups]
    for weights, group in zip(found, groups, strict=True):
        W = weights().detach().double()
        assert len(W) == len(group.units)
        for u in (0, len(W) - 1):
            without = copy.deepcopy(model)
            with differentiable(without):
                assert (
                    cut(ChannelGraph(without, inputs(2)), group.root, group.units[u], inputs(2))
                    == ""
                )
            lost = squares(model) - squares(without)
            assert float(W[u].square().sum()) == pytest.approx(lost, rel=1e-4), (group.root, u)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_gradients_reach_producers_norms_and_readers() -> None:
    model, inputs, _ = build("residual")
    inner, stream = weights_of(model, inputs(2))
    assert set(stream.layers) == {"stem", "conv2"}
    (3 * inner()[7]).sum().backward()
    conv1, bn1, conv2 = model.conv1.weight.grad, model.bn1.weight.grad, model.conv2.weight.grad
    assert bool((conv1[7] == 3).all())
    assert bn1.tolist() == [3.0 if c == 7 else 0.0 for c in range(24)]
    assert bool((conv2[:, 7] == 3).all())
    assert float(conv1.sum() + conv2.sum()) == 3 * (conv1[7].numel() + conv2[:, 7].numel())
    assert model.stem.weight.grad is None
    with torch.no_grad():
        model.conv1.weight[7] = 0
    assert int((inner()[7] == 0).sum()) == conv1[7].numel(), "the weights as they are now"


def weak_half(norms: Tensor) -> float:
    """Share of the summed norms that the weaker half of the channels holds: 0.5 where all are
    alike.
    """
    ordered = norms.sort().values
    return float(ordered[: len(ordered) // 2].sum() / ordered.sum())


def spread(model: nn.Module, task: Task) -> float:
    shares = [weak_half(W().detach().norm(dim=1)) for W in weights_of(model, task.example(2))]
    return sum(shares) / len(shares)


def moved(model: nn.Module, task: Task) -> float:
    """How far the predictions move when 40% of the channels go, relative to their size."""
    stage = StructuredPrune(importance="group_magnitude", ratio=0.4, round_to=1, spread="per_layer")
    pruned, _ = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=1))
    before, after = predict(model, task.val)[0], predict(pruned, task.val)[0]
    return float((after - before).norm() / before.norm())


def tuned(problem: tuple[nn.Module, Task], **parameters: object) -> tuple[nn.Module, float]:
    model, task = problem
    stage = Tune(epochs=8, lr=0.1, batch_size=64, weight_decay=0.0, **parameters)
    result, trace = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=1))
    return result, float(str(trace.details["score_after"]))


@pytest.fixture(scope="module")
def without_penalty(
    digits_problem: tuple[DigitsNet, Task],
) -> tuple[tuple[nn.Module, Task], float, float]:
    """The problem, and how alike the channels are and what cutting moves after training without a
    penalty.
    """
    problem = (digits_problem[0], dataclasses.replace(digits_problem[1], augment=None))
    model, _ = tuned(problem)
    return problem, spread(model, problem[1]), moved(model, problem[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "weight"), [("group_lasso", 0.05), ("growing", 0.1), ("hoyer", 1.0)]
)
def test_behind_batch_norms_and_across_shortcuts_a_penalty_makes_cutting_cheaper(
    without_penalty: tuple[tuple[nn.Module, Task], float, float], kind: str, weight: float
) -> None:
    """Penalties on the filters of each layer alone miss these bounds: most lengths do not matter to
    the function.
    """
    problem, alike, cost = without_penalty
    model, score = tuned(problem, penalty=kind, penalty_weight=weight)
    assert score > 0.9, "it has not unlearnt the task"
    assert spread(model, problem[1]) < 0.6 * alike
    assert moved(model, problem[1]) < 0.7 * cost
