"""Structured pruning: importance by loops, allocation by brute force, and cuts by the function they
must compute.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.prune import importance
from petra.methods.prune.allocate import MIN_SHARE, Candidate, keep_global, keep_per_layer, lowest
from petra.methods.prune.scores import Ranking, score
from petra.methods.prune.statistics import (
    BATCH_SIZE,
    TAYLOR_BATCHES,
    gather,
    mean_absolute_gradients,
)
from petra.methods.prune.structured import StructuredPrune
from petra.model.channels.cut import cut
from petra.model.channels.graph import ChannelGraph
from petra.model.channels.groups import find_groups
from petra.model.surgery import count_parameters, differentiable, output_layers
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import call, named_outputs
from petra.training.loop import predict, predict_all
from petra.workloads.cifar10 import pretrained

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


def task_of(inputs: Callable[[int], Tensor], classes: int = 3) -> Task:
    def split(n: int) -> tuple[Tensor, Tensor]:
        return inputs(n), torch.arange(n) % classes

    return classification(split(40), split(8), split(8))


def context_of(model: nn.Module, task: Task, seed: int = 0) -> Context:
    return Context(task=task, teacher=model, seed=seed)


def settled(model: nn.Module) -> nn.Module:
    """With norms whose statistics, gains and biases are not the initial ones, in eval mode."""
    generator = torch.Generator().manual_seed(5)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean.normal_(0, 0.3, generator=generator)
            m.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.uniform_(m.weight, 0.2, 2.0, generator=generator)
            nn.init.normal_(m.bias, 0, 0.3, generator=generator)
    return model.eval()


# name -> model, inputs, layers whose outputs may be cut
ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], set[str]]] = {
    "residual": (zoo.Residual, zoo.images, {"stem", "conv1", "conv2"}),
    "dense": (zoo.Dense, zoo.images, {"a", "b", "c", "d"}),
    "chunked": (lambda: zoo.Gated(fixed=False), lambda n: zoo.rows(n, 10), {"a", "b"}),
    "fixed halves": (lambda: zoo.Gated(fixed=True), lambda n: zoo.rows(n, 10), {"b"}),
    "grouped": (zoo.Grouped, zoo.images, {"a", "g", "p"}),
    "separable": (zoo.separable, zoo.images, {"0", "3", "6"}),
    "mlp": (zoo.mlp, lambda n: zoo.rows(n, 10), {"0", "2"}),
    "temporal": (zoo.Temporal, lambda n: zoo.rows(n, 2, 20), {"a", "b"}),
    "squeeze-excite": (zoo.SqueezeExcite, zoo.images, {"a", "r", "e"}),
    "upsampling": (zoo.Upsampling, zoo.images, {"a", "t"}),
    "tied": (zoo.Tied, lambda n: zoo.rows(n, 6), {"m"}),
    "padded": (zoo.Padded, zoo.images, {"a", "inner"}),
    "attention": (zoo.Attention, lambda n: zoo.rows(n, 5, 6), {"up"}),
    "many outputs": (zoo.ManyOutputs, lambda n: zoo.rows(n, 6), {"z_first"}),
    "group norm": (zoo.GroupNormed, zoo.images, {"a", "c"}),
    "branches": (zoo.Inception, lambda n: zoo.rows(n, 2, 20), {"a", "b", "c", "shortcut"}),
    "volumes": (zoo.Volumes, lambda n: zoo.rows(n, 2, 4, 4, 4), {"a", "up", "b"}),
}
zoo_model = pytest.mark.parametrize("name", list(ZOO))


def build(name: str) -> tuple[nn.Module, Callable[[int], Tensor], set[str]]:
    make, inputs, cuttable = ZOO[name]
    torch.manual_seed(0)
    return settled(make()), inputs, cuttable


# --- importance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("dim", [0, 1])
def test_magnitude_is_the_norm_of_each_filter(p: float, dim: int) -> None:
    weight = torch.randn(4, 3, 2, 5)
    weight[1, 1] = 0
    got = importance.magnitude(weight, p=p, dim=dim)
    for c in range(weight.shape[dim]):
        values = [float(v) for v in weight.select(dim, c).flatten()]
        expected = (
            sum(v != 0 for v in values) if p == 0 else sum(abs(v) ** p for v in values) ** (1 / p)
        )
        assert float(got[c]) == pytest.approx(expected, rel=1e-5)


def test_taylor_sums_absolute_products_of_weight_and_gradient() -> None:
    weight, gradient = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    for dim in (0, 1):
        got = importance.taylor(weight, gradient, dim=dim)
        for c in range(weight.shape[dim]):
            pairs = zip(
                weight.select(dim, c).flatten(), gradient.select(dim, c).flatten(), strict=True
            )
            assert float(got[c]) == pytest.approx(
                sum(abs(float(w) * float(g)) for w, g in pairs), rel=1e-5
            )


def test_bn_scale_ignores_the_sign() -> None:
    assert importance.bn_scale(torch.tensor([-2.0, 0.5])).tolist() == [2.0, 0.5]


def test_coupled_scores_are_means_of_relative_scores() -> None:
    # Members of very different scale count alike; channel 2 is covered by the first member only.
    got = importance.coupled(
        [(torch.tensor([1.0, 2.0, 3.0]), [0, 1, 2]), (torch.tensor([300.0, 100.0]), [0, 1])], 3
    )
    assert got.tolist() == pytest.approx([(0.5 + 1.5) / 2, (1.0 + 0.5) / 2, 1.5])
    assert importance.relative(torch.zeros(3)).tolist() == [0, 0, 0]


def test_taylor_averages_over_batches_and_counts_items(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    model, task = digits_problem
    model = copy.deepcopy(model)
    found, items = mean_absolute_gradients(model, task, batches=2, seed=3)
    assert items == 128
    layer = model.get_submodule("body.0.0")
    expected = torch.zeros(len(layer.weight))
    model.eval()
    for (x, y), _ in zip(task.train.batches(64, seed=3), range(2), strict=False):
        loss = nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
        (gradient,) = torch.autograd.grad(loss, [layer.weight])
        expected += (layer.weight * gradient).abs().flatten(1).sum(1).detach() / 2
    torch.testing.assert_close(
        importance.taylor(layer.weight.detach(), found["body.0.0.weight"]), expected
    )


# --- allocation -----------------------------------------------------------------------------------


def random_candidates(seed: int, *, multiple: int = 1) -> list[Candidate]:
    g = torch.Generator().manual_seed(seed)
    widths = (torch.randint(2, 12, (5,), generator=g) * multiple).tolist()
    return [Candidate(torch.rand(w, generator=g) * (i + 1), w) for i, w in enumerate(widths)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("round_to", [1, 4, 8, 16])
def test_kept_widths_are_multiples_above_the_floor_or_untouched(seed: int, round_to: int) -> None:
    candidates = random_candidates(seed, multiple=3)  # widths that are no multiples of the rounding
    ratio = 0.05 + 0.045 * seed
    for keep in (keep_global, keep_per_layer):
        for c, k in zip(candidates, keep(candidates, ratio=ratio, round_to=round_to), strict=True):
            assert k == c.remaining or (
                k % round_to == 0 and k >= max(1, MIN_SHARE * c.original) and k < c.remaining
            )


@pytest.mark.parametrize("seed", range(20))
def test_per_layer_counts_are_the_nearest_multiple(seed: int) -> None:
    candidates = random_candidates(seed, multiple=4)
    for c, k in zip(candidates, keep_per_layer(candidates, ratio=0.4, round_to=4), strict=True):
        best = min(range(4, c.original + 1, 4), key=lambda m: (abs(m - 0.6 * c.original), -m))
        assert k == max(best, c.floor(4))


def test_the_highest_ratio_of_the_search_is_within_reach_of_every_layer() -> None:
    ratio = StructuredPrune.card().parameter("ratio")
    assert ratio is not None
    assert (ratio.domain.low, ratio.domain.high) == (0.05, 0.95)
    widths = range(2, 600)
    candidates = [Candidate(torch.rand(n), n) for n in widths]
    for n, kept in zip(widths, keep_per_layer(candidates, ratio=0.95, round_to=1), strict=True):
        assert kept == max(1, math.floor(0.05 * n + 0.5))
    wide = candidates[40:]
    total = sum(c.original for c in wide)
    assert abs(total - sum(keep_global(wide, ratio=0.95, round_to=1)) - 0.95 * total) <= 0.5


@pytest.mark.parametrize("seed", range(20))
def test_global_ranking_removes_exactly_the_lowest_scores(seed: int) -> None:
    candidates = [
        Candidate(c.scores + 0.01, c.original) for c in random_candidates(seed, multiple=10)
    ]
    total = sum(c.original for c in candidates)
    kept = keep_global(candidates, ratio=0.1, round_to=1)
    everything = sorted((float(s), i) for i, c in enumerate(candidates) for s in c.scores)
    gone = everything[: int(0.1 * total + 0.5)]
    expected = [c.original - sum(i == j for _, j in gone) for i, c in enumerate(candidates)]
    floors = [c.floor(1) for c in candidates]
    if all(e >= f for e, f in zip(expected, floors, strict=True)):
        assert kept == expected
    else:
        assert all(k >= f for k, f in zip(kept, floors, strict=True))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("round_to", [4, 8])
def test_global_total_is_within_half_a_block(seed: int, round_to: int) -> None:
    g = torch.Generator().manual_seed(seed)
    candidates = [Candidate(torch.rand(8 * n, generator=g), 8 * n) for n in (4, 6, 8, 16)]
    total = sum(c.original for c in candidates)
    for ratio in (0.1, 0.25, 0.5):
        removed = total - sum(keep_global(candidates, ratio=ratio, round_to=round_to))
        assert abs(removed - ratio * total) <= round_to / 2 + 0.5


def test_global_ranking_counts_what_earlier_cuts_removed() -> None:
    half_gone = [Candidate(torch.rand(10), 20), Candidate(torch.rand(20), 20)]
    assert keep_global(half_gone, ratio=0.25, round_to=1) == [10, 20]
    assert sum(keep_global(half_gone, ratio=0.5, round_to=1)) == 20


def test_units_count_for_their_channels() -> None:
    candidates = [Candidate(torch.rand(8), 8, size=4), Candidate(torch.rand(32), 32)]
    kept = keep_global(candidates, ratio=0.25, round_to=1)
    assert abs(4 * kept[0] + kept[1] - 48) <= 2


def test_a_layer_is_left_alone_where_no_multiple_is_nearer() -> None:
    assert keep_per_layer([Candidate(torch.rand(24), 24)], ratio=0.05, round_to=16) == [24]
    assert keep_per_layer([Candidate(torch.rand(24), 24)], ratio=0.3, round_to=16) == [16]


def test_lowest_breaks_ties_by_position() -> None:
    assert lowest(torch.tensor([3.0, 1.0, 1.0, 0.0, 1.0]), 3) == [1, 2, 3]


# --- groups and cuts ------------------------------------------------------------------------------


@zoo_model
def test_only_what_can_be_cut_is_found_and_everything_else_has_a_reason(name: str) -> None:
    model, inputs, cuttable = build(name)
    state = copy.deepcopy(model.state_dict())
    groups, reasons = find_groups(model, inputs(2), generator=torch.Generator().manual_seed(0))
    assert {path for g in groups for path in g.layers} == cuttable
    weighted = {path for path, m in model.named_modules() if isinstance(m, WEIGHTED)}
    assert set(reasons) == weighted - cuttable
    assert all(reasons.values())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def inception(*, weak: str) -> tuple[nn.Module, Task]:
    """With one branch, and what is added to it, next to nothing."""
    model, inputs, _ = build("branches")
    start, stop = {"a": (0, 8), "b": (8, 20), "c": (20, 40)}[weak]
    with torch.no_grad():
        model.get_submodule(weak).weight *= 1e-4
        model.shortcut.weight[start:stop] *= 1e-4
    return model, task_of(inputs)


def test_segments_are_the_channels_that_a_branch_makes() -> None:
    model, inputs, _ = build("branches")
    (group,), _ = find_groups(model, inputs(2), generator=torch.Generator().manual_seed(0))
    assert group.segments == (tuple(range(8)), tuple(range(8, 20)), tuple(range(20, 40)))
    for name in set(ZOO) - {"branches"}:
        model, inputs, _ = build(name)
        groups, _ = find_groups(model, inputs(2), generator=torch.Generator().manual_seed(0))
        assert all(group.segments == (tuple(range(len(group.units))),) for group in groups), name


@pytest.mark.parametrize("weak", ["a", "b", "c"])
@pytest.mark.parametrize("round_to", [1, 4])
@pytest.mark.parametrize("spread", ["global", "per_layer"])
@pytest.mark.parametrize("schedule", ["one_shot", "iterative"])
def test_every_branch_of_a_sum_keeps_its_floor_and_its_multiple(
    weak: str, round_to: int, spread: str, schedule: str
) -> None:
    """A ranking of the sum's channels would take all that the weak branch has."""
    model, task = inception(weak=weak)
    stage = StructuredPrune(
        ratio=0.5,
        round_to=round_to,
        spread=spread,
        normalisation="none",
        schedule=schedule,
        steps=2,
        epochs_between=0,
    )
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
    widths = {path: pruned.get_submodule(path).out_channels for path in ("a", "b", "c")}
    for path, width in widths.items():
        original = model.get_submodule(path).out_channels
        assert width == original or (
            width % round_to == 0 and width >= max(1, MIN_SHARE * original)
        )
    assert sum(widths.values()) == pruned.shortcut.out_channels == pruned.fc.in_features
    assert trace.details["removed_channels"] == 40 - sum(widths.values())
    if spread == "global":
        assert abs(sum(widths.values()) - 20) <= 2
        assert widths[weak] <= 0.5 * model.get_submodule(weak).out_channels, "it is the weakest"
    assert pruned(zoo.rows(3, 2, 20)).shape == (3, 3)


def test_a_signal_that_fades_does_not_hide_channels() -> None:
    """Untrained: tiny weights, batch norms that have seen nothing, and a branch scaled by next to
    nothing.
    """

    class Faint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(i, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.SiLU()
                )
                for i in (3, 8, 8, 8, 8, 8)
            )
            self.up, self.down, self.scale = (
                nn.Linear(8, 16),
                nn.Linear(16, 8),
                nn.Parameter(1e-6 * torch.ones(8)),
            )
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            x = x.mean((2, 3))
            return self.head(x + self.scale * self.down(torch.relu(self.up(x))))

    torch.manual_seed(0)
    model = Faint().eval()
    for p in model.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.005)
    groups, reasons = find_groups(
        model, zoo.images(2, 16), generator=torch.Generator().manual_seed(0)
    )
    assert {path for g in groups for path in g.layers} == {
        "up",
        "down",
        *(f"blocks.{i}.0" for i in range(6)),
    }
    assert set(reasons) == {"head"}


def test_reasons_name_the_cause() -> None:
    causes = {
        "tied": ("a", "shares a weight with 'b'"),
        "fixed halves": ("a", "no longer runs"),
        "attention": ("qkv", "no longer runs"),
        "many outputs": ("unused", "do not reach it"),
        "residual": ("head", "produces the model's output"),
    }
    for name, (layer, phrase) in causes.items():
        model, inputs, _ = build(name)
        _, reasons = find_groups(model, inputs(2), generator=torch.Generator().manual_seed(0))
        assert phrase in reasons[layer], (name, reasons)
    model, inputs, _ = build("attention")
    assert "normalises across" in find_groups(model, inputs(2), generator=torch.Generator())[1]["e"]


@pytest.mark.parametrize(
    ("make", "inputs", "expected"),
    [
        (zoo.Residual, zoo.images(2), {"head"}),
        (zoo.Upsampling, zoo.images(2), {"o"}),
        (zoo.ManyOutputs, zoo.rows(2, 6), {"a_classifier", "side", "hidden"}),
        (
            lambda: nn.Sequential(
                nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Softmax(1)
            ),
            zoo.rows(2, 6),
            {"2"},
        ),
        (
            lambda: nn.Sequential(nn.Embedding(7, 6), nn.GRU(6, 5)),
            torch.arange(6).reshape(2, 3),
            {"1"},
        ),
    ],
)
def test_output_layers_are_those_that_produce_the_outputs(
    make: Callable[[], nn.Module], inputs: Tensor, expected: set[str]
) -> None:
    model = make().train()
    model.requires_grad_(False)
    assert output_layers(model, lambda m: named_outputs(call(m, inputs)).values()) == expected
    assert not any(p.requires_grad for p in model.parameters())
    assert model.training


def test_a_wrong_cut_with_the_right_shapes_is_caught() -> None:
    model, inputs, _ = build("padded")
    state = copy.deepcopy(model.state_dict())
    with differentiable(model):
        graph = ChannelGraph(model, inputs(2))
        wrong = cut(graph, "b", [0, 5], inputs(2))
    assert "does not keep its channels in place" in wrong
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()), (
        "a wrong cut is undone"
    )
    with differentiable(model):
        graph = ChannelGraph(model, inputs(2))
        graph.remove(graph.group("b", [0, 5]))
    assert model(inputs(2)).shape == (2, 3)  # the shapes alone would not have told


@zoo_model
def test_cut_networks_keep_outputs_inputs_and_ratio(name: str) -> None:
    model, inputs, cuttable = build(name)
    task = task_of(inputs)
    first = {path: m.weight.shape for path, m in model.named_modules() if isinstance(m, WEIGHTED)}
    outputs = output_layers(model, lambda m: named_outputs(call(m, inputs(2))).values())
    stage = StructuredPrune(ratio=0.5, round_to=1, spread="per_layer")
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
    for n in (1, 3):
        expected = {k: t.shape for k, t in named_outputs(call(model, inputs(n))).items()}
        assert {k: t.shape for k, t in named_outputs(call(pruned, inputs(n))).items()} == expected
    for path, shape in first.items():
        now = pruned.get_submodule(path).weight.shape
        out = 1 if isinstance(model.get_submodule(path), nn.ConvTranspose2d) else 0
        assert now[out] == (shape[out] / 2 if path in cuttable else shape[out])
        assert path not in outputs or path not in trace.details["channels"]
    assert trace.details["achieved_ratio"] == 0.5


def test_pruned_network_computes_what_the_masked_one_does() -> None:
    """Distinct BatchNorm gains tell which channels survived; the others are set to zero by hand in
    the original.
    """
    model, inputs, _ = build("residual")
    stage = StructuredPrune(ratio=0.4, round_to=1, spread="per_layer")
    pruned, _ = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 5)))
    masked = copy.deepcopy(model)
    removed = 0
    for conv, bn in (("stem", "bn0"), ("conv1", "bn1"), ("conv2", "bn2")):
        kept = {v.item() for v in pruned.get_submodule(bn).weight}
        gone = [i for i, v in enumerate(model.get_submodule(bn).weight) if v.item() not in kept]
        removed += len(gone)
        with torch.no_grad():
            masked.get_submodule(conv).weight[gone] = 0
            masked.get_submodule(bn).weight[gone] = 0
            masked.get_submodule(bn).bias[gone] = 0
    assert removed > 10
    x = inputs(4)
    assert (model(x) - masked(x)).abs().max().item() > 1e-2  # or the next line would show nothing
    torch.testing.assert_close(pruned(x), masked(x), rtol=1e-4, atol=1e-5)


# Where a channel that is set to zero stays zero until it is read: group root -> layer after which
# to silence it.
SILENCED = {
    "temporal": {"a": "bn", "b": "b"},
    "separable": {"3": "4", "6": "7"},
    "chunked": {"a": "a", "b": "b"},
    "grouped": {"a": "a", "g": "bn", "p": "p"},
    "upsampling": {"a": "a", "t": "t"},
    "group norm": {"a": "gn", "c": "c"},
    "volumes": {"up": "up", "b": "b"},
}


@pytest.mark.parametrize("name", list(SILENCED))
def test_cut_networks_compute_what_silenced_channels_leave(name: str) -> None:
    model, inputs, _ = build(name)
    x = inputs(3)
    groups, _ = find_groups(model, inputs(2), generator=torch.Generator().manual_seed(0))
    pruned, before = copy.deepcopy(model), model(x)
    channel = -1 if isinstance(model, zoo.Gated) else 1
    for g in groups:
        gone = [i for u in g.units[::3] for i in u]
        with differentiable(pruned):
            assert cut(ChannelGraph(pruned, inputs(2)), g.root, gone, inputs(2)) == ""

        def silence(
            module: nn.Module, args: object, output: Tensor, gone: list[int] = gone
        ) -> Tensor:
            return output.index_fill(channel, torch.tensor(gone), 0.0)

        model.get_submodule(SILENCED[name][g.root]).register_forward_hook(silence)
    assert {g.root for g in groups} == set(SILENCED[name])
    assert (model(x) - before).abs().max().item() > 1e-3
    torch.testing.assert_close(pruned(x), model(x), rtol=1e-4, atol=1e-5)


@zoo_model
def test_a_trial_leaves_no_trace(name: str) -> None:
    model, inputs, _ = build(name)
    plain = (bool, int, str, tuple, type(None))
    with differentiable(model):
        graph = ChannelGraph(model, inputs(2))
        before = {
            path: {k: v for k, v in vars(m).items() if isinstance(v, plain)}
            for path, m in model.named_modules()
        }
        parameters = dict(model.named_parameters())
        for root, full, _ in list(graph.roots()):
            items = [(graph.paths.get(d.target.module), d.handler, sorted(i)) for d, i in full]
            outcomes = [
                cut(graph, root, range(graph.width(root) // 2), inputs(2), trial=True)
                for _ in range(2)
            ]
            assert outcomes[0] == outcomes[1]
            again = [
                (graph.paths.get(d.target.module), d.handler, sorted(i))
                for d, i in graph.group(root, range(graph.width(root)))
            ]
            assert again == items
        after = {
            path: {k: v for k, v in vars(m).items() if isinstance(v, plain)}
            for path, m in model.named_modules()
        }
        assert after == before
        assert all(p is parameters[n] for n, p in model.named_parameters())


def test_group_norm_loses_whole_groups() -> None:
    model, inputs, _ = build("group norm")
    stage = StructuredPrune(ratio=0.5, round_to=8, spread="per_layer")
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs)))
    assert trace.details["channels"] == {"a": [24, 16], "c": [12, 8]}
    assert (pruned.gn.num_groups, pruned.gn.num_channels) == (4, 16)
    kept = {tuple(f.flatten().tolist()) for f in pruned.a.weight}
    gone = [i for i, f in enumerate(model.a.weight) if tuple(f.flatten().tolist()) not in kept]
    assert {i // 4 for i in gone} == {gone[0] // 4, gone[-1] // 4}


def test_dicts_and_norms_without_a_module() -> None:
    """Llama's block: the gated widths can go, the stream under the root mean square cannot."""
    torch.manual_seed(0)
    model = zoo.GatedMLP().eval()

    def inputs(n: int) -> dict[str, Tensor]:
        return {"x": zoo.rows(n, 5, 6), "mask": torch.ones(n, 5)}

    task = classification(*((inputs(n), torch.arange(n) % 3) for n in (16, 8, 8)))
    stage = StructuredPrune(ratio=0.4, round_to=8)
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
    assert trace.details["channels"] == {"gate": [40, 24], "up": [40, 24]}
    kept = {tuple(row.tolist()) for row in pruned.gate.weight}
    gone = [i for i, row in enumerate(model.gate.weight) if tuple(row.tolist()) not in kept]
    model.down.weight.data[:, gone] = 0
    for got, expected in zip(
        pruned(**inputs(3)).values(), model(**inputs(3)).values(), strict=True
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    "kind", ["magnitude", "bn_scale", "taylor", "hessian", "group_taylor", "group_hessian"]
)
def test_low_scores_cost_less_than_high_scores(
    kind: str, digits_problem: tuple[nn.Module, Task]
) -> None:
    """The direction of the ranking, on a trained network: the same number of channels from either
    end.

    Judged by how far the predictions move, which tells more than accuracies near chance.
    """
    model, task = digits_problem
    groups, _ = find_groups(model, task.example(2), generator=torch.Generator().manual_seed(0))
    before, _ = predict(model, task.val)
    moved = {}
    for sign in (1, -1):
        pruned = copy.deepcopy(model)
        with differentiable(pruned):
            evidence, _ = gather(kind, pruned, task, seed=0, device="cpu")
            graph = ChannelGraph(pruned, task.example(2))
            scores = [sign * score(graph, g, Ranking(kind, evidence=evidence)) for g in groups]
            for g, ranked in zip(groups, scores, strict=True):
                units = lowest(ranked, len(g.units) // 3)
                assert (
                    cut(graph, g.root, [i for u in units for i in g.units[u]], task.example(2))
                    == ""
                )
        moved[sign] = float(
            task.distance().setting(temperature=1.0)(
                {"output": predict(pruned, task.val)[0]}, {"output": before}
            )
        )
    assert moved[1] < moved[-1]


# --- the stage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("importance_name", ["magnitude", "bn_scale", "taylor"])
@pytest.mark.parametrize("spread", ["global", "per_layer"])
def test_stage_on_a_trained_network(
    importance_name: str, spread: str, digits_problem: tuple[nn.Module, Task]
) -> None:
    model, task = digits_problem
    stage = StructuredPrune(importance=importance_name, spread=spread, ratio=0.3, round_to=4)
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
    assert count_parameters(pruned) < count_parameters(model)
    # The trace against the models themselves.
    old, new = dict(model.named_modules()), dict(pruned.named_modules())
    changed = {
        path
        for path, m in new.items()
        if [p.shape for p in m.parameters(recurse=False)]
        != [p.shape for p in old[path].parameters(recurse=False)]
    }
    assert set(trace.touched) == changed
    assert not set(trace.touched) & set(trace.skipped)
    assert {path for path, m in old.items() if isinstance(m, WEIGHTED)} <= {
        *trace.touched,
        *trace.skipped,
    }
    assert trace.skipped.get("classifier") or "classifier" in trace.details["outputs_kept"]
    for path, (before, after) in trace.details["channels"].items():
        assert (old[path].out_channels, new[path].out_channels) == (before, after)
        assert after % 4 == 0
        assert after < before
    assert trace.details["removed_channels"] == sum(
        cut["removed_channels"] for cut in trace.details["cuts"]
    )
    ratio = trace.details["removed_channels"] / trace.details["prunable_channels"]
    assert trace.details["achieved_ratio"] == pytest.approx(ratio, abs=1e-4)
    if spread == "global":
        assert (
            abs(trace.details["removed_channels"] - 0.3 * trace.details["prunable_channels"]) <= 2.5
        )
    items = [cut.get("calibration_items") for cut in trace.details["cuts"]]
    assert items == [
        min(TAYLOR_BATCHES * BATCH_SIZE, len(task.train)) if importance_name == "taylor" else None
    ]


def test_same_seed_same_cut(digits_problem: tuple[nn.Module, Task]) -> None:
    model, task = digits_problem
    stage = StructuredPrune(importance="taylor", ratio=0.3, round_to=1)
    global_state = torch.random.get_rng_state()
    first, second = (
        stage.apply(copy.deepcopy(model), context_of(model, task, seed=4))[0] for _ in range(2)
    )
    assert torch.equal(torch.random.get_rng_state(), global_state)
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


def test_iterative_reaches_the_ratio_and_tunes_between(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    model, task = digits_problem
    stage = StructuredPrune(
        ratio=0.4, round_to=1, schedule="iterative", steps=3, epochs_between=1, lr=0.05
    )
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
    cuts = trace.details["cuts"]
    assert [round(c["ratio"], 3) for c in cuts] == [0.133, 0.267, 0.4]
    assert [("tuning" in c, c.get("tuning", {}).get("epochs")) for c in cuts] == [
        (True, 1),
        (True, 1),
        (False, None),
    ]
    assert trace.details["achieved_ratio"] == pytest.approx(0.4, abs=0.01)
    one_shot, _ = StructuredPrune(ratio=0.4, round_to=1).apply(
        copy.deepcopy(model), context_of(model, task)
    )
    tuned, cold = (float(task.loss()(*predict_all(m, task.val))) for m in (pruned, one_shot))
    assert tuned < cold


def test_refusals_leave_the_model_alone() -> None:
    model, inputs, _ = build("residual")
    state = copy.deepcopy(model.state_dict())
    task = task_of(inputs, 5)
    with pytest.raises(StageRefused, match="no channel at all"):
        StructuredPrune(ratio=0.05, round_to=16, spread="per_layer").apply(
            model, context_of(model, task)
        )
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    single = nn.Sequential(nn.Flatten(), nn.Linear(243, 5))
    with pytest.raises(StageRefused, match="no layer has channels"):
        StructuredPrune().apply(single, context_of(single, task))
    norm_free, rows, _ = build("mlp")
    with pytest.raises(StageRefused) as refusal:
        StructuredPrune(importance="bn_scale").apply(
            norm_free, context_of(norm_free, task_of(rows))
        )
    assert "no BatchNorm" in refusal.value.hint


def test_a_cut_that_breaks_is_refused_with_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault injected after the trials: the code starts to count on a width."""
    model, inputs, _ = build("residual")
    state = copy.deepcopy(model.state_dict())
    monkeypatch.setattr("petra.methods.prune.structured.cut", lambda *args, **kwargs: "a fault")
    with pytest.raises(StageRefused, match="a fault") as refusal:
        StructuredPrune(ratio=0.5, round_to=1).apply(model, context_of(model, task_of(inputs, 5)))
    assert refusal.value.layer in {"stem", "conv1", "conv2"}
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_a_group_that_cannot_go_with_the_others_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, _ = build("residual")

    def faulty(graph: ChannelGraph, root: str, channels: list[int], example: Tensor) -> str:
        return "a fault" if root == "conv1" else cut(graph, root, channels, example)

    monkeypatch.setattr("petra.methods.prune.structured.cut", faulty)
    stage = StructuredPrune(ratio=0.5, round_to=1, spread="per_layer")
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 5)))
    assert {**trace.skipped, **trace.details["outputs_kept"]}["conv1"] == "a fault"
    assert pruned.conv1.out_channels == model.conv1.out_channels
    assert trace.details["channels"] == {"stem": [16, 8], "conv2": [16, 8]}


def test_frozen_parameters_and_modes_survive() -> None:
    model, inputs, _ = build("residual")
    model.train()
    model.bn1.eval()
    model.conv1.weight.requires_grad_(False)
    stage = StructuredPrune(ratio=0.5, round_to=1, spread="per_layer")
    pruned, _ = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 5)))
    assert [n for n, p in pruned.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert {n: m.training for n, m in pruned.named_modules()} == {
        n: m.training for n, m in model.named_modules()
    }
    assert all(p.grad is None for p in pruned.parameters())


def test_every_setting_of_the_card_is_accepted() -> None:
    card = StructuredPrune.card()
    generator = np.random.default_rng(0)
    for _ in range(20):
        spec = card.sample(generator)
        stage = StructuredPrune.from_spec(spec)
        assert stage.card().normalize(vars(stage)) == spec


def test_option_a_resnet_is_cut_inside_its_blocks_only(data_root: Path) -> None:
    model = pretrained("resnet20", data_root / "weights" / "resnet20.pt")
    inputs = lambda n: zoo.images(n, 32)  # noqa: E731
    stage = StructuredPrune(ratio=0.2, round_to=4)
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 10)))
    inner = {f"layer{i}.{j}.conv1" for i in (1, 2, 3) for j in range(3)}
    assert set(trace.details["channels"]) <= inner
    assert trace.details["prunable_channels"] == 3 * (16 + 32 + 64)
    assert abs(trace.details["removed_channels"] - 0.2 * 336) <= 2.5
    assert "conv1" in trace.skipped
    assert all(
        f"layer{i}.{j}.conv2" in {**trace.skipped, **trace.details["outputs_kept"]}
        for i in (1, 2, 3)
        for j in range(3)
    )
    x = inputs(4)
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for path in trace.details["channels"]:
            bn = path.replace("conv1", "bn1")
            kept = {v.item() for v in pruned.get_submodule(bn).weight}
            for i, value in enumerate(model.get_submodule(bn).weight):
                if value.item() not in kept:
                    masked.get_submodule(bn).weight[i] = masked.get_submodule(bn).bias[i] = 0
    torch.testing.assert_close(pruned(x), masked(x), rtol=1e-3, atol=1e-4)
