"""Which groups are found, and the reasons of all that is not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import zoo
from cut_parts import zoo_model
from pruned_parts import WEIGHTED, ZOO, build, context_of, task_of
from torch import Tensor, nn

from petra.methods.prune.allocate import MIN_SHARE
from petra.methods.prune.structured import StructuredPrune
from petra.model.channels.groups import find_groups
from petra.model.surgery import output_layers
from petra.tasks.base import Task
from petra.tasks.inputs import call, named_outputs

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
