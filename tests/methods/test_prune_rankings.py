"""What a ranking is for: the least loss, every spread, and widths as they are rounded."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import zoo
from ranking_parts import EXAMPLES, groups_of, image_task, row_task
from torch import Tensor, nn

from petra.methods.base import Context
from petra.methods.prune import importance
from petra.methods.prune.allocate import Candidate, block_of, keep_global, keep_per_block
from petra.methods.prune.scores import (
    IMPORTANCES,
    Ranking,
    score,
)
from petra.methods.prune.statistics import (
    gather,
)
from petra.methods.prune.structured import StructuredPrune
from petra.model.channels.graph import ChannelGraph
from petra.model.surgery import differentiable
from petra.networks.resnet import CifarResNet
from petra.tasks.base import Task
from petra.tasks.classification import classification

ITEMS = 4096


# --- what a ranking is for ------------------------------------------------------------------------


class Additive(nn.Module):
    """y = sum_j v_j u_j x_j with one hidden channel per input, so that the loss without each can be
    computed.
    """

    def __init__(self, u: Tensor, v: Tensor) -> None:
        super().__init__()
        self.hidden, self.out = (
            nn.Linear(len(u), len(u), bias=False),
            nn.Linear(len(u), 2, bias=False),
        )
        self.hidden.weight.data = torch.diag(u)
        self.out.weight.data = torch.stack([v, torch.zeros_like(v)])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.hidden(x))
        return y


def additive_problem() -> tuple[Additive, Task]:
    """Inputs of very different size: the weights alone say nothing about what a channel is
    worth.
    """
    g = torch.Generator().manual_seed(0)
    size = torch.tensor([7.0, 0.01, 2.0, 0.15, 2.5, 0.4])
    u, v = (
        torch.tensor([0.3, 3.0, 0.5, 2.0, 0.2, 1.0]),
        torch.tensor([1.0, 1.0, 0.5, 1.0, 1.5, 1.0]),
    )
    x = torch.randn(ITEMS, 6, generator=g) * size
    model = Additive(u, v).eval()
    chance = torch.rand(ITEMS, generator=g)
    # The model's own probabilities: it is at its minimum.
    y = (chance > torch.sigmoid(model(x)[:, 0])).long()
    split = (x, y)
    return model, classification(split, split, split)


@pytest.mark.parametrize("kind", ["taylor", "hessian", "group_taylor", "group_hessian"])
def test_the_lowest_ranked_channel_costs_the_least_loss(kind: str) -> None:
    model, task = additive_problem()
    x, y = task.train.source.take(torch.arange(ITEMS))
    group = groups_of(model, task.example(2))["hidden"]
    evidence, _ = gather(kind, model, task, seed=0, device="cpu")
    with differentiable(model):
        ranking = Ranking(kind, evidence=evidence)
        ranks = score(ChannelGraph(model, task.example(2)), group, ranking).argsort().tolist()
    cost = []
    for c in range(6):
        without = copy.deepcopy(model)
        without.hidden.weight.data[c] = 0
        with torch.no_grad():
            cost.append(
                float(
                    nn.functional.cross_entropy(without(x), y)
                    - nn.functional.cross_entropy(model(x), y)
                )
            )
    by_cost = np.argsort(cost).tolist()
    assert ranks[0] == by_cost[0] == 1
    assert ranks[-1] == by_cost[-1]
    assert importance.magnitude(model.hidden.weight.detach()).argmax() == 1, (
        "the largest filter is the useless one"
    )


def stage_on(
    model: nn.Module, task: Task, **parameters: object
) -> tuple[nn.Module, dict[str, object]]:
    stage = StructuredPrune(**parameters)  # type: ignore[arg-type]
    pruned, trace = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=0))
    return pruned, dict(trace.details)


def test_entropy_removes_the_channels_that_never_speak() -> None:
    torch.manual_seed(0)
    model, task = zoo.mlp().eval(), row_task(10, n=128)
    model[0].weight.data[[3, 17]] *= 50  # large, and silenced by their biases
    model[0].bias.data[[3, 17]] = -1e6
    for kind, expected in (("activation_entropy", {3, 17}), ("magnitude", set())):
        pruned, _ = stage_on(
            model, task, importance=kind, ratio=2 / 32, spread="per_layer", round_to=1
        )
        kept = {tuple(row.tolist()) for row in pruned[0].weight}
        gone = {i for i, row in enumerate(model[0].weight) if tuple(row.tolist()) not in kept}
        assert len(gone) == 2
        assert gone & {3, 17} == expected


def test_fpgm_removes_a_filter_that_others_can_replace() -> None:
    torch.manual_seed(0)
    model, task = zoo.mlp().eval(), row_task(10)
    weight = model[0].weight.data
    weight[5] = weight.mean(0) + 1e-3  # in the middle of all others
    pruned, _ = stage_on(
        model, task, importance="fpgm", ratio=1 / 32, spread="per_layer", round_to=1
    )
    assert not (pruned[0].weight == model[0].weight[5]).all(1).any()


@pytest.mark.parametrize("spread", ["global", "per_block", "per_layer"])
@pytest.mark.parametrize("kind", IMPORTANCES)
def test_the_stage_runs_with_every_importance_and_spread(kind: str, spread: str) -> None:
    torch.manual_seed(0)
    model, task = zoo.Residual().eval(), image_task(5)
    pruned, details = stage_on(model, task, importance=kind, spread=spread, ratio=0.5, round_to=4)
    assert details["removed_channels"]
    with torch.no_grad():
        assert pruned(zoo.images(3)).shape == (3, 5)
    again, _ = stage_on(model, task, importance=kind, spread=spread, ratio=0.5, round_to=4)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in pruned.state_dict().items())


def test_random_differs_between_seeds() -> None:
    torch.manual_seed(0)
    model, task = zoo.mlp().eval(), row_task(10)
    stage = StructuredPrune(importance="random", ratio=0.5, round_to=1)
    kept = []
    for seed in (0, 1):
        pruned, _ = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=seed))
        kept.append({tuple(row.tolist()) for row in pruned[0].weight})
    assert kept[0] != kept[1]


def test_parameters_without_meaning_are_dropped() -> None:
    card = StructuredPrune.card()
    assert "p" in card.normalize({"importance": "group_magnitude"}).params
    assert "p" not in card.normalize({"importance": "taylor"}).params
    assert "normalisation" not in card.normalize({"spread": "per_layer"}).params
    assert "reduction" not in card.normalize({"importance": "random"}).params


# --- spreads and rounding -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", EXAMPLES)
@pytest.mark.parametrize("round_to", [1, 4])
def test_every_block_loses_its_share(seed: int, round_to: int) -> None:
    g = torch.Generator().manual_seed(seed)
    widths = (4 * torch.randint(2, 10, (7,), generator=g)).tolist()
    candidates = [Candidate(torch.rand(w, generator=g) * 10**i, w) for i, w in enumerate(widths)]
    blocks = ["x", "y", "x", "", "y", "y", ""]
    kept = keep_per_block(candidates, blocks, ratio=0.4, round_to=round_to)
    for block in set(blocks):
        mine = [i for i, b in enumerate(blocks) if b == block]
        assert [kept[i] for i in mine] == keep_global(
            [candidates[i] for i in mine], ratio=0.4, round_to=round_to
        )
        floors = all(kept[i] > candidates[i].floor(round_to) for i in mine)
        removed, total = sum(widths[i] - kept[i] for i in mine), sum(widths[i] for i in mine)
        assert not floors or abs(removed - 0.4 * total) <= round_to / 2 + 0.5
    assert kept != keep_global(candidates, ratio=0.4, round_to=round_to), (
        "scores of very different scale"
    )


def test_a_block_is_the_outermost_repeated_module() -> None:
    resnet = dict(CifarResNet(20).named_modules())
    assert block_of("layer2.1.conv1", resnet) == "layer2"
    assert block_of("conv1", resnet) == ""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    transformer = dict(
        nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(layer, 3)).named_modules()
    )
    assert block_of("1.layers.2.linear1", transformer) == "1.layers.2"
    assert block_of("0", transformer) == ""


@pytest.mark.parametrize(
    ("size", "round_to", "step"), [(1, 8, 8), (4, 8, 2), (8, 8, 1), (6, 4, 2), (16, 8, 1)]
)
def test_units_are_rounded_so_that_channels_are_multiples(
    size: int, round_to: int, step: int
) -> None:
    candidate = Candidate(torch.rand(16), 16, size)
    assert candidate.step(round_to) == step
    assert step == min(n for n in range(1, 17) if n * size % round_to == 0)
    (kept,) = keep_global([candidate], ratio=0.5, round_to=round_to)
    assert kept * size % round_to == 0


def test_equal_scores_are_taken_from_all_layers_in_turn() -> None:
    candidates = [Candidate(torch.ones(20), 20) for _ in range(3)]
    assert keep_global(candidates, ratio=0.5, round_to=1) == [10, 10, 10]
