"""Scores of coupled channels: which weights belong to one, and what data says of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import zoo
from ranking_parts import groups_of, image_task, row_task
from torch import Tensor, nn

from petra.methods.prune import importance
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
from petra.model.channels.graph import ChannelGraph
from petra.model.surgery import differentiable
from petra.tasks.base import Task

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
