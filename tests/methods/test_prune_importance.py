"""Importance scores against loops over single numbers, and against what removing a channel really
costs.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn

from petra.methods.base import Context
from petra.methods.prune import importance
from petra.methods.prune.allocate import Candidate, block_of, keep_global, keep_per_block
from petra.methods.prune.scores import (
    GROUP_IMPORTANCES,
    IMPORTANCES,
    Ranking,
    by_owner,
    rows,
    score,
)
from petra.methods.prune.statistics import (
    empirical_fisher,
    gather,
    mean_absolute_gradients,
    read_activations,
)
from petra.methods.prune.structured import StructuredPrune
from petra.model.channels.graph import ChannelGraph
from petra.model.channels.groups import ChannelGroup, find_groups
from petra.model.surgery import differentiable
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs
from petra.workloads.resnet import CifarResNet

EXAMPLES = range(6)
ITEMS = 4096


def random_filters(seed: int) -> np.ndarray:
    """Channels first, with a repeated filter and one of zeros."""
    weight = np.random.default_rng(seed).normal(size=(7, 3, 2))
    weight[4] = weight[1]
    weight[5] = 0
    return weight


def as_tensor(weight: np.ndarray, dim: int) -> Tensor:
    return torch.tensor(np.moveaxis(weight, 0, dim))


# --- one layer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", EXAMPLES)
@pytest.mark.parametrize("dim", [0, 1])
def test_hessian_is_half_the_curvature_times_the_squared_weights(seed: int, dim: int) -> None:
    weight, curvature = (
        random_filters(seed),
        np.random.default_rng(seed + 100).uniform(size=(7, 3, 2)),
    )
    expected = [
        sum(0.5 * curvature[(c, *at)] * weight[(c, *at)] ** 2 for at in np.ndindex(3, 2))
        for c in range(7)
    ]
    got = importance.hessian(as_tensor(weight, dim), as_tensor(curvature, dim), dim=dim)
    assert got.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("seed", EXAMPLES)
@pytest.mark.parametrize("dim", [0, 1])
def test_lamp_divides_by_everything_that_is_not_smaller(seed: int, dim: int) -> None:
    weight = random_filters(seed)
    squared = [sum(w * w for w in f.flat) for f in weight]
    expected = [
        s / sum(t for j, t in enumerate(squared) if (t, j) >= (s, i)) for i, s in enumerate(squared)
    ]
    got = importance.lamp(as_tensor(weight, dim), dim=dim)
    assert got.tolist() == pytest.approx(expected)
    assert float(got.max()) == pytest.approx(1.0)
    assert squared[int(got.argmax())] == max(squared), (
        "an inverted sum gives 1 to the smallest filter"
    )


def test_lamp_compares_layers_of_any_scale() -> None:
    """Both layers keep the same filters when one of them is a thousand times the other; norms would
    empty it.
    """
    weight = torch.tensor(random_filters(0))[:5] + 1e-3
    lamp = [importance.lamp(weight), importance.lamp(1e-3 * weight)]
    torch.testing.assert_close(*lamp)
    assert keep_global([Candidate(s, 5) for s in lamp], ratio=0.4, round_to=1) == [3, 3]
    norms = [Candidate(importance.magnitude(w), 5) for w in (weight, 1e-3 * weight)]
    assert keep_global(norms, ratio=0.4, round_to=1) == [5, 1]


def test_lamp_of_nothing_is_nothing() -> None:
    assert importance.lamp(torch.zeros(3, 2)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", EXAMPLES)
@pytest.mark.parametrize("dim", [0, 1])
def test_fpgm_sums_the_distances_to_the_other_filters(seed: int, dim: int) -> None:
    weight = random_filters(seed)
    expected = [
        sum(
            math.sqrt(sum((a - b) ** 2 for a, b in zip(f.flat, g.flat, strict=True)))
            for g in weight
        )
        for f in weight
    ]
    assert importance.fpgm(as_tensor(weight, dim), dim=dim).tolist() == pytest.approx(expected)


def test_fpgm_gives_up_the_filter_in_the_middle_not_the_smallest() -> None:
    weight = torch.tensor([[5.0, 5.0], [8.0, 5.0], [1.0, 4.0], [5.0, 9.0], [4.0, 1.0]])
    assert int(importance.fpgm(weight).argmin()) == 0
    assert int(importance.magnitude(weight).argmin()) != 0


@pytest.mark.parametrize("seed", EXAMPLES)
@pytest.mark.parametrize("bins", [2, 5, 32])
def test_entropy_of_a_histogram_per_channel(seed: int, bins: int) -> None:
    x = np.random.default_rng(seed).normal(size=(50, 4)) ** 3
    x[:, 2] = x[:, 2] > 0.5
    x[:, 3] = 0.1
    expected = []
    for channel in x.T:
        counts, _ = np.histogram(channel, bins=bins, range=(channel.min(), channel.max()))
        shares = [c / len(channel) for c in counts if c]
        expected.append(
            -sum(s * math.log(s) for s in shares) if channel.min() < channel.max() else 0.0
        )
    got = importance.activation_entropy(torch.tensor(x), bins=bins)
    assert got.tolist() == pytest.approx(expected, abs=1e-12)
    assert float(got[3]) == 0
    assert float(got.max()) <= math.log(bins) + 1e-12


# --- several layers -------------------------------------------------------------------------------


MEMBERS = [
    ([3.0, 1.0, 2.0], [0, 1, 2]),
    ([10.0, 30.0], [2, 0]),
    ([0.5, 0.25], [1, 3]),
]


@pytest.mark.parametrize("kind", importance.REDUCTIONS)
@pytest.mark.parametrize("relative", [True, False])
def test_members_are_reduced_channel_by_channel(kind: str, relative: bool) -> None:
    """Channel 3 has one member, channel 4 none."""

    def of(values: list[float]) -> list[float]:
        return [v * len(values) / sum(values) for v in values] if relative else values

    found: list[list[float]] = [
        [of(values)[channels.index(c)] for values, channels in MEMBERS if c in channels]
        for c in range(5)
    ]
    reduce: dict[str, Callable[[list[float]], float]] = {
        "sum": sum,
        "mean": lambda v: sum(v) / len(v),
        "max": max,
        "prod": math.prod,
        "first": lambda v: v[0],
    }  # fmt: skip
    expected = [reduce[kind](v) if v else 0.0 for v in found]
    members = [(torch.tensor(v), c) for v, c in MEMBERS]
    got = (importance.coupled if relative else importance.reduced)(members, 5, kind)
    assert got.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("seed", EXAMPLES)
def test_normalisations_keep_the_order_and_fix_one_statistic(seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0, 5, size=9).tolist()
    mean = sum(values) / 9
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 9)
    expected = {
        "none": values,
        "sum": [v / sum(values) for v in values],
        "mean": [v / mean for v in values],
        "max": [v / max(values) for v in values],
        "gaussian": [(v - mean) / deviation for v in values],
    }
    assert set(expected) == set(importance.NORMALISATIONS)
    for kind, numbers in expected.items():
        got = importance.normalised(torch.tensor(values, dtype=torch.float64), kind)
        assert got.tolist() == pytest.approx(numbers), kind
        assert got.argsort().tolist() == np.argsort(values).tolist()


@pytest.mark.parametrize("kind", importance.NORMALISATIONS)
def test_scores_that_are_all_zero_stay_zero(kind: str) -> None:
    assert importance.normalised(torch.zeros(3), kind).tolist() == [0, 0, 0]


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValueError, match="median"):
        importance.normalised(torch.ones(2), "median")
    with pytest.raises(ValueError, match="median"):
        importance.reduced([(torch.ones(2), [0, 1])], 2, "median")


# --- which weights belong to a channel ------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Conv1d(6, 4, 3),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.ConvTranspose2d(6, 4, 3),
        nn.ConvTranspose2d(6, 6, 3, groups=6),
        nn.Conv3d(6, 4, 2, groups=2),
    ],
    ids=lambda m: f"{type(m).__name__}-{getattr(m, 'groups', 1)}",
)
def test_rows_are_the_weights_that_a_channel_touches(layer: nn.Module) -> None:
    """Asked of autograd: which weights do an output channel, and an input channel, depend on?"""
    shape = [2, 6] + [4] * (layer.weight.ndim - 2)
    numbers = torch.arange(layer.weight.numel()).reshape(layer.weight.shape).float()
    for inputs, width in ((False, len(layer(torch.ones(shape))[0])), (True, 6)):
        got = rows(layer, numbers, inputs=inputs)
        assert len(got) == width
        for channel in range(width):
            x = torch.ones(shape)
            if inputs:
                x = torch.zeros(shape)
                x[:, channel] = 1
            y = layer(x)
            layer.zero_grad()
            (y.square() if inputs else y[:, channel]).sum().backward()
            touched = numbers[layer.weight.grad != 0]
            assert sorted(got[channel].tolist()) == sorted(touched.tolist())


def test_parts_of_one_channel_stand_in_one_row() -> None:
    channels, table = by_owner(torch.tensor([[1.0, 2], [3, 4], [5, 6]]), [7, 2, 7])
    assert channels == [2, 7]
    assert table.tolist() == [[3, 4, 0, 0], [1, 2, 5, 6]]


# --- groups ---------------------------------------------------------------------------------------


def image_task(classes: int, n: int = 24) -> Task:
    def split(size: int) -> tuple[Tensor, Tensor]:
        return zoo.images(size), torch.arange(size) % classes

    return classification(split(n), split(8), split(8))


def row_task(*shape: int, n: int = 24, classes: int = 3) -> Task:
    def split(size: int) -> tuple[Tensor, Tensor]:
        return zoo.rows(size, *shape), torch.arange(size) % classes

    return classification(split(n), split(8), split(8))


def groups_of(model: nn.Module, example: Inputs) -> dict[str, ChannelGroup]:
    found, _ = find_groups(model, example, generator=torch.Generator().manual_seed(0))
    return {path: g for g in found for path in g.layers}


def numpy_of(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def test_group_scores_count_every_weight_that_makes_or_reads_a_channel() -> None:
    """Squeeze-and-excite: channels of `a` are scaled by `e`, normed by `bn`, read by `r` and the
    classifier.
    """
    torch.manual_seed(0)
    model = zoo.SqueezeExcite().eval()
    nn.init.uniform_(model.bn.weight, 0.5, 2)
    group = groups_of(model, zoo.images(2))["a"]
    task = image_task(3)
    with differentiable(model):
        graph = ChannelGraph(model, zoo.images(2))
        for kind in GROUP_IMPORTANCES:
            evidence, _ = gather(kind, model, task, seed=0, device="cpu")
            made = [("a", 0), ("e", 0), ("bn", 0), ("r", 1), ("fc", 1)]
            expected = np.zeros(16)
            for path, dim in made:
                weight = np.moveaxis(numpy_of(model.get_submodule(path).weight), dim, 0)
                data = evidence.get(f"{path}.weight")
                known = (
                    np.zeros_like(weight)
                    if data is None
                    else np.moveaxis(data.double().numpy(), dim, 0)
                )
                member = []
                for c in range(16):
                    pairs = list(zip(np.ravel(weight[c]), np.ravel(known[c]), strict=True))
                    member.append(
                        {
                            "group_magnitude": math.sqrt(sum(w * w for w, _ in pairs)),
                            "group_taylor": sum(abs(w * d) for w, d in pairs),
                            "group_hessian": sum(w * w * d / 2 for w, d in pairs),
                        }[kind]
                    )
                expected += np.array(member) / np.mean(member) / len(made)
            got = score(graph, group, Ranking(kind, evidence=evidence))
            np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4)


def test_plain_scores_count_only_the_weights_that_make_a_channel() -> None:
    torch.manual_seed(0)
    model = zoo.SqueezeExcite().eval()
    group = groups_of(model, zoo.images(2))["a"]
    with differentiable(model):
        got = score(
            ChannelGraph(model, zoo.images(2)),
            group,
            Ranking("magnitude", p=1, normalisation="none"),
        )
    made = [numpy_of(m.weight).reshape(16, -1) for m in (model.a, model.e)]
    expected = [sum(sum(abs(w) for w in m[c]) for m in made) / 2 for c in range(16)]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5)


def test_a_flattened_channel_is_read_by_many_inputs() -> None:
    torch.manual_seed(0)
    model = zoo.Temporal().eval()
    group = groups_of(model, zoo.rows(2, 2, 20))["b"]
    with differentiable(model):
        graph = ChannelGraph(model, zoo.rows(2, 2, 20))
        got = score(graph, group, Ranking("group_magnitude", normalisation="none", reduction="sum"))
    fc, b = numpy_of(model.fc.weight), numpy_of(model.b.weight)
    expected = [
        np.linalg.norm(b[c]) + np.linalg.norm(fc[:, 20 * c : 20 * (c + 1)]) for c in range(8)
    ]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5)


NETS: dict[str, tuple[Callable[[], nn.Module], Task]] = {
    "grouped": (zoo.Grouped, image_task(3)),
    "group norm": (zoo.GroupNormed, image_task(3)),
    "chunked": (lambda: zoo.Gated(fixed=False), row_task(10)),
}


@pytest.mark.parametrize("name", list(NETS))
def test_every_combination_gives_one_finite_score_per_unit(name: str) -> None:
    make, task = NETS[name]
    torch.manual_seed(0)
    model = make().eval()
    groups = {g.root: g for g in groups_of(model, task.example(2)).values()}
    statistic = {"sum": torch.sum, "mean": torch.mean, "max": torch.max}
    with differentiable(model):
        graph = ChannelGraph(model, task.example(2))
        for kind in IMPORTANCES:
            evidence, _ = gather(kind, model, task, seed=0, device="cpu")
            for group, reduction in itertools.product(groups.values(), importance.REDUCTIONS):
                for normalisation in importance.NORMALISATIONS:
                    generator = torch.Generator().manual_seed(0)
                    ranking = Ranking(kind, 2.0, reduction, normalisation, evidence, generator)
                    got = score(graph, group, ranking)
                    if kind == "bn_scale" and not len(got):
                        continue
                    case = f"{kind} {group.root} {reduction} {normalisation}"
                    assert len(got) == len(group.units), case
                    assert bool(got.isfinite().all()), case
                    if normalisation in statistic and float(got.sum()):
                        assert float(statistic[normalisation](got)) == pytest.approx(1), case


# --- what data says -------------------------------------------------------------------------------


def test_fisher_is_the_mean_square_of_single_gradients() -> None:
    torch.manual_seed(0)
    model, task = zoo.mlp().eval(), row_task(10, n=20)
    found, items = empirical_fisher(model, task, batches=1, seed=0, micro_batch=1)
    assert items == 20
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for x, y in zip(*task.train.source.take(torch.arange(20)), strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), y[None], label_smoothing=0.1)
        for name, g in zip(
            expected, torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            expected[name] += g.square() / 20
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-9)


def test_parameters_without_gradients_are_left_out() -> None:
    torch.manual_seed(0)
    model = zoo.ManyOutputs().eval()
    found, _ = mean_absolute_gradients(model, row_task(6), batches=1, seed=0)
    assert "unused.weight" not in found
    assert float(found["z_first.weight"].sum()) > 0


def test_activations_are_what_each_layer_reads_pooled_per_item() -> None:
    torch.manual_seed(0)
    model, task = zoo.Temporal().eval(), row_task(2, 20, n=10)
    found, items = read_activations(model, task, batches=1, seed=0)
    assert items == 10
    assert {path: tuple(t.shape) for path, t in found.items()} == {
        "a": (10, 2),
        "b": (10, 16),
        "fc": (10, 160),
    }
    x = next(task.train.batches(64, seed=0))[0]
    torch.testing.assert_close(found["b"], torch.relu(model.bn(model.a(x))).mean(2).detach())
    with differentiable(model):
        graph = ChannelGraph(model, task.example(2))
        got = score(
            graph,
            groups_of(model, task.example(2))["b"],
            Ranking("activation_entropy", evidence=found),
        )
    pooled = torch.relu(model.b(torch.relu(model.bn(model.a(x))))).mean(2).detach().double()
    expected = importance.activation_entropy(pooled)
    torch.testing.assert_close(got, expected / expected.mean(), rtol=1e-3, atol=1e-4)


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
