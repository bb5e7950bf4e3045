"""Structured pruning's parameters against the whole stage by brute force: each must reach what is
cut.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping

import pytest
import torch
import zoo
from torch import Tensor, nn

from petra.methods.base import Context
from petra.methods.prune.importance import NORMALISATIONS, REDUCTIONS
from petra.methods.prune.scores import Ranking, score
from petra.methods.prune.structured import StructuredPrune
from petra.model.channels.graph import ChannelGraph
from petra.model.channels.groups import find_groups
from petra.model.surgery import differentiable
from petra.tasks.base import Task
from petra.tasks.classification import classification

RATIO = 0.3
STREAM, WIDTHS = 10, (16, 24)
# Groups by root: the layers whose outputs are coupled, first the root, and the block that it lies
# in.
GROUPS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "blocks.0.inner": (("blocks.0.inner",), "blocks.0"),
    "blocks.1.inner": (("blocks.1.inner",), "blocks.1"),
    "blocks.1.outer": (("blocks.1.outer", "blocks.0.outer", "stem"), "blocks.1"),
}
Channel = tuple[str, int]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(STREAM, width), nn.Linear(width, STREAM)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.outer(torch.relu(self.inner(x)))
        return y


class Stream(nn.Module):
    """A residual stream that three layers write to, and two blocks of different width and scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Linear(6, STREAM), nn.ModuleList(map(Block, WIDTHS))
        self.head = nn.Linear(STREAM, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x)
        return logits


def stream() -> tuple[Stream, Task]:
    """Filters with tails, zeros for the norm that counts them, and biases that tell channels
    apart.
    """
    g = torch.Generator().manual_seed(32)
    model = Stream().eval()
    for i, p in enumerate(model.parameters()):
        sparse = torch.rand(p.shape, generator=g) < torch.rand(len(p), generator=g).view(
            -1, *[1] * (p.ndim - 1)
        )
        p.data = (
            1.5 ** (i % 4) * torch.randn(p.shape, generator=g) ** 3 * (sparse if p.ndim > 1 else 1)
        )
    x = zoo.rows(24, 6)
    split = (x, torch.arange(24) % 3)
    return model, classification(split, split, split)


# -- the oracle: loops over single numbers ---------------------------------------------------------


def filters(model: nn.Module, path: str) -> list[list[float]]:
    weight: Tensor = model.get_submodule(path).weight.detach()  # type: ignore[operator, union-attr]
    return [[float(v) for v in row] for row in weight]


def norms(rows: list[list[float]], p: int) -> list[float]:
    return [
        float(sum(v != 0 for v in r)) if p == 0 else sum(abs(v) ** p for v in r) ** (1 / p)
        for r in rows
    ]


def lamp(rows: list[list[float]]) -> list[float]:
    """Lee et al. 2021, equation 4: the square over the sum of all squares that are not smaller."""
    squares = [sum(v * v for v in r) for r in rows]
    return [s / sum(t for t in squares if t >= s) for s in squares]


REDUCE: Mapping[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "mean": lambda v: sum(v) / len(v),
    "max": max,
    "prod": math.prod,
    "first": lambda v: v[0],
}  # fmt: skip


def normalised(scores: list[float], kind: str) -> list[float]:
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((s - mean) ** 2 for s in scores) / len(scores))
    divisor = {
        "none": 1.0,
        "sum": sum(scores),
        "mean": mean,
        "max": max(scores),
        "gaussian": deviation,
    }[kind]
    return [(s - mean if kind == "gaussian" else s) / divisor for s in scores]


def group_scores(
    model: nn.Module, root: str, *, kind: str, p: int, reduction: str, normalisation: str
) -> list[float]:
    layers = [filters(model, path) for path in GROUPS[root][0]]
    members = [lamp(rows) if kind == "lamp" else norms(rows, p) for rows in layers]
    if normalisation != "none":
        members = [normalised(m, "mean") for m in members]
    return normalised(
        [REDUCE[reduction](list(values)) for values in zip(*members, strict=True)], normalisation
    )


def chosen(
    model: nn.Module,
    *,
    kind: str = "magnitude",
    p: int = 2,
    reduction: str = "mean",
    normalisation: str = "mean",
    spread: str = "global",
) -> set[Channel]:
    """The channels that go: the lowest of all, or of every block, as many as the ratio says; of
    equal ones those that come first in their layer.
    """
    ranked: dict[str, list[tuple[float, float, Channel]]] = {}
    for root, (_, block) in GROUPS.items():
        scores = group_scores(
            model, root, kind=kind, p=p, reduction=reduction, normalisation=normalisation
        )
        place = {"global": "all", "per_block": block, "per_layer": root}[spread]
        ranked.setdefault(place, []).extend(
            (s, i / len(scores), (root, i)) for i, s in enumerate(scores)
        )
    return {
        c for found in ranked.values() for *_, c in sorted(found)[: int(RATIO * len(found) + 0.5)]
    }


def cut_by_the_stage(model: nn.Module, task: Task, **parameters: object) -> set[Channel]:
    stage = StructuredPrune(ratio=RATIO, round_to=1, **parameters)  # type: ignore[arg-type]
    pruned, _ = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=0))
    gone: set[Channel] = set()
    for root in GROUPS:
        kept = pruned.get_submodule(root).bias.tolist()  # type: ignore[operator, union-attr]
        before = model.get_submodule(root).bias.tolist()  # type: ignore[operator, union-attr]
        gone |= {(root, i) for i, b in enumerate(before) if b not in kept}
    return gone


# -- the stage against it --------------------------------------------------------------------------


SETTINGS: Mapping[str, list[dict[str, object]]] = {
    "p": [{"p": p} for p in (0, 1, 2)],
    "reduction": [{"reduction": kind, "normalisation": "none"} for kind in REDUCTIONS],
    "normalisation": [{"normalisation": kind} for kind in NORMALISATIONS],
    "spread": [{"spread": kind} for kind in ("global", "per_block", "per_layer")],
}


def test_the_groups_are_those_of_the_oracle() -> None:
    model, task = stream()
    groups, _ = find_groups(model, task.example(2), generator=torch.Generator().manual_seed(0))
    assert {g.root: g.layers for g in groups} == {
        root: layers for root, (layers, _) in GROUPS.items()
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_every_value_of_a_parameter_cuts_what_the_oracle_says_and_no_two_the_same(
    name: str,
) -> None:
    model, task = stream()
    found = []
    for setting in SETTINGS[name]:
        found.append(cut_by_the_stage(model, task, **setting))
        assert found[-1] == chosen(model, **setting), setting  # type: ignore[arg-type]
    assert all(a != b for a, b in itertools.combinations(found, 2)), (
        "a parameter without an effect here tests nothing"
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("spread", ["global", "per_block"])
def test_the_parameters_together(reduction: str, normalisation: str, spread: str) -> None:
    model, task = stream()
    setting = {"p": 1, "reduction": reduction, "normalisation": normalisation, "spread": spread}
    assert cut_by_the_stage(model, task, **setting) == chosen(model, **setting)


def test_lamp_scores_of_coupled_layers_against_the_formula() -> None:
    model, task = stream()
    groups, _ = find_groups(model, task.example(2), generator=torch.Generator().manual_seed(0))
    with differentiable(model):
        graph = ChannelGraph(model, task.example(2))
        for group in groups:
            got = score(graph, group, Ranking("lamp", normalisation="none"))
            oracle = {"kind": "lamp", "p": 2, "reduction": "mean", "normalisation": "none"}
            assert got.tolist() == pytest.approx(group_scores(model, group.root, **oracle)), (
                group.root
            )  # type: ignore[arg-type]


@pytest.mark.parametrize("spread", ["global", "per_block"])
def test_lamp_is_ranked_as_it_is(spread: str) -> None:
    """Whatever the normalisation, which a pipeline with LAMP does not even name."""
    model, task = stream()
    expected = chosen(model, kind="lamp", normalisation="none", spread=spread)
    assert any(
        chosen(model, kind="lamp", normalisation=n, spread=spread) != expected
        for n in NORMALISATIONS
    )
    for normalisation in NORMALISATIONS:
        got = cut_by_the_stage(
            model, task, importance="lamp", spread=spread, normalisation=normalisation
        )
        assert got == expected
    card = StructuredPrune.card()
    assert card.normalize({"importance": "lamp"}) == card.normalize(
        {"importance": "lamp", "normalisation": "max"}
    )
    assert "reduction" in card.normalize({"importance": "lamp"}).params
