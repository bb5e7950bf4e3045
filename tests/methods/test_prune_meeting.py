"""Structured pruning where many channels meet in one: linear walks, true reasons, gates that couple
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.core.pipeline import Pipeline
from petra.model.channels import graph
from petra.model.channels.groups import find_groups
from petra.testing.architectures.gated import (
    ChannelAttention,
    GatedConv,
    GlobalContext,
    NeighbourGate,
    ShuffleBlock,
    Softened,
    SpatialGate,
)
from petra.testing.coverage import ACTS, attempt

WIDTH = 2048
STEPS_A_CHANNEL = 100
"""Generous for the few dozen operations of these networks; a quadratic walk takes thousands."""


class ViewGate(NeighbourGate):
    """The same gate by views."""

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        return x * torch.sigmoid(self.conv(x.mean((2, 3)).view(n, 1, c))).view(n, c, 1, 1)


class ItemGate(nn.Module):
    """One gate for a whole item."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.score(x.mean((2, 3)))).view(-1, 1, 1, 1)


class PixelGate(nn.Module):
    """One gate for every pixel, from a convolution of all channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.score(x))


class OverChannels(nn.Module):
    """LayerNorm over the channels of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return out


def around(gate: nn.Module, width: int) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, width, 1), gate, nn.Conv2d(width, 12, 1)]
    return nn.Sequential(
        *layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3)
    ).eval()


def found(model: nn.Module, *shape: int) -> tuple[set[str], dict[str, str]]:
    """Layers whose channels can go, and why those of the others cannot."""
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    groups, reasons = find_groups(model, x, generator=torch.Generator().manual_seed(0))
    return {path for group in groups for path in group.layers}, reasons


# Gates, and whether the layer before them can be cut.
GATES: dict[str, tuple[Callable[[int], nn.Module], bool]] = {
    "one gate an item": (ItemGate, True),
    "one gate a pixel": (PixelGate, True),
    "channel attention": (lambda width: ChannelAttention(width, 8), True),
    "a single hidden unit": (lambda width: ChannelAttention(width, 1), True),
    "over neighbours": (lambda width: NeighbourGate(5), False),
    "over neighbours, by views": (lambda width: ViewGate(5), False),
    "mean and maximum": (lambda width: SpatialGate(), False),
    "softmax": (Softened, False),
    "attention pooling": (lambda width: GlobalContext(width, 8), True),
    "one group": (lambda width: nn.GroupNorm(1, width), False),
    "layer norm": (OverChannels, False),
    "shuffle": (ShuffleBlock, False),
}


@pytest.mark.parametrize("name", GATES)
def test_gates_are_followed_for_what_they_are(name: str) -> None:
    make, cuttable = GATES[name]
    cut, reasons = found(around(make(32), 32), 3, 8, 8)
    assert {"0", "4"} <= cut
    assert ("2" in cut) == cuttable, reasons.get("2")
    for path, reason in reasons.items():
        assert "index out of range" not in reason, path


@pytest.mark.parametrize(
    "name", ["over neighbours, by views", "a single hidden unit", "softmax", "mean and maximum"]
)
def test_walks_are_linear_in_width(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MOST_STEPS", STEPS_A_CHANNEL * WIDTH)
    cut, reasons = found(around(GATES[name][0](WIDTH), WIDTH), 3, 4, 4)
    assert {"0", "4"} <= cut
    assert not any("steps" in reason for reason in reasons.values())


def test_a_walk_that_takes_too_long_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MOST_STEPS", 20)
    cut, reasons = found(around(nn.ReLU(), 32), 3, 8, 8)
    assert "more than 20 steps" in reasons["2"]
    assert "2" not in cut


def test_the_layer_where_all_meet_is_named() -> None:
    _, reasons = found(around(NeighbourGate(5), 32), 3, 8, 8)
    assert reasons["2"] == "all its channels meet in the one input channel of '3.conv'"
    assert reasons["3.conv"] == "it has a single channel"


class Pieces(nn.Module):
    """Chunks that are read more than once, in another order, and both by one operation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 24), nn.Linear(12, 16), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.a(x).chunk(2, -1)
        third, fourth = self.b(second * torch.sigmoid(first) + torch.tanh(first)).chunk(2, 1)
        out: Tensor = self.c(third * fourth)
        return out


def test_pieces_of_a_layer_are_cut_together() -> None:
    cut, reasons = found(Pieces().eval(), 6)
    assert cut == {"a", "b"}, reasons


@pytest.mark.parametrize("kind", ["convolution", "linear"])
def test_gated_linear_units_are_cut_in_both_halves(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "convolution":
        cut, reasons = found(
            nn.Sequential(GatedConv(3, 8), nn.Flatten(), nn.Linear(8 * 6, 3)).eval(), 3, 6
        )
        assert cut == {"0.conv", "0.mix"}, reasons
    else:
        model = nn.Sequential(
            nn.Linear(6, 16), nn.GLU(), nn.Linear(8, 12), nn.GLU(1), nn.Linear(6, 3)
        )
        cut, reasons = found(model.eval(), 6)
        assert cut == {"0", "2"}, reasons


class Unmet(nn.Module):
    """Layers that a trace by gradients does not meet, each for another reason."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.read, self.unused = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.frozen(x).detach()
        x = functional.linear(x, self.read.weight, self.read.bias)
        out: Tensor = self.head(torch.relu(self.body(x)))
        return out


def test_layers_that_are_not_met_are_told_apart() -> None:
    torch.manual_seed(0)
    cut, reasons = found(Unmet().eval(), 6)
    assert cut == {"body"}
    assert "no gradients" in reasons["frozen"]
    assert reasons["read"] == "its weight is read directly, without calling it"
    assert reasons["unused"] == "the example inputs do not reach it"


def test_a_reader_that_is_down_to_one_channel_ends_its_group_and_not_the_stage() -> None:
    """Between two cuts of one stage, factors of low rank lose all but one of their channels."""
    iterative = {"schedule": "iterative", "steps": 2, "epochs_between": 1, "ratio": 0.686}
    scores = {"importance": "activation_entropy", "normalisation": "gaussian", "reduction": "prod"}
    pipeline = Pipeline.from_list(
        [
            {"stage": "lowrank.tucker", "params": {"ratio": 0.292}},
            {
                "stage": "prune.structured",
                "params": {**iterative, **scores, "round_to": 1, "spread": "per_block"},
            },
        ]
    )
    cell = attempt("densenet", pipeline)
    assert cell.outcome == ACTS, cell.reason
