"""What stages that round prefer on tasks of values: which layers stay float, what is clipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from regression_parts import after, heavy_tails, unguarded
from test_quantize_stage import input_range
from torch import Tensor, nn

import petra
from petra.config import parse_config
from petra.core.pipeline import StageSpec
from petra.methods.base import Context
from petra.methods.quantize.parameters import excluded_layers
from petra.methods.table import STAGES
from petra.model.copies.copying import copy_model
from petra.problem import build_space
from petra.space.narrow import narrow
from petra.tasks.base import Task

ROUNDING = {"quantize.static": "ends", "quantize.qat": "ends", "quantize.dynamic": "last"}


class HeadFirst(nn.Module):
    """Defines what runs last first, and has two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({"mean": nn.Linear(16, 1), "spread": nn.Linear(16, 1)})
        self.stem = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.body = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(self.stem(x)))
        return torch.cat([self.heads["mean"](x), self.heads["spread"](x).exp()], 1)


class Branches(nn.Module):
    """Two layers read the input, one of them after what has no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.after, self.left, self.right = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        return self.after(torch.relu(self.left(x)) + self.right((x - mean) / std))


class Detached(HeadFirst):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


def test_the_last_layers_are_those_that_the_outputs_come_from() -> None:
    x, model = torch.randn(2, 8), HeadFirst().eval()
    heads = frozenset({"heads.mean", "heads.spread"})
    assert excluded_layers(model, "last", x) == heads
    assert excluded_layers(model, "ends", x) == heads | {"stem.0"}
    assert excluded_layers(Branches().eval(), "first", x) == {"left", "right"}
    assert excluded_layers(petra.Rescaled(model), "last", x) == {f"model.{h}" for h in heads}
    assert excluded_layers(model, "none", x) == frozenset()
    assert excluded_layers(model, "stem, body", x) == {"stem", "body"}
    # What cannot be followed is the last one defined.
    assert excluded_layers(Detached().eval(), "last", x) == {"body"}
    assert not any(p.grad is not None for p in model.parameters())


def classification() -> Task:
    x = torch.randn(60, 8)
    pair = (x, torch.arange(60) % 3)
    return petra.classification(pair, pair, pair)


@pytest.mark.parametrize("kind", ROUNDING)
def test_outputs_are_precise_by_default_and_half_of_the_time_in_a_search(kind: str) -> None:
    _, task = heavy_tails(90)
    card, wanted = STAGES.get(kind).card_for(task), ROUNDING[kind]
    assert card.normalize({}).params["exclude"] == wanted
    built = STAGES.get(kind).from_spec(StageSpec(kind), task)
    assert built.exclude == wanted  # type: ignore[attr-defined]
    drawn = [card.sample(np.random.default_rng(i)).params["exclude"] for i in range(400)]
    assert 0.5 < drawn.count(wanted) / len(drawn) < 0.75
    assert card.normalize({"exclude": "none"}).params["exclude"] == "none", "a person may"
    fixed = narrow(card, {"exclude": "none"}, where="space")
    assert fixed.normalize({}).params["exclude"] == "none"
    assert fixed.sample(np.random.default_rng(0)).params["exclude"] == "none"
    plain = STAGES.get(kind).card_for(classification())
    assert plain.parameter("exclude") == STAGES.get(kind).card().parameter("exclude")


def test_the_space_of_a_study_has_them() -> None:
    model, task = heavy_tails(90)
    config = parse_config({"workload": "digits", "budget": {"trials": 1}})
    card = build_space(config, task, model).cards["quantize.static"]
    assert card.normalize({}).params["exclude"] == "ends"
    assert card.normalize({}).params["observer"] == "minmax"


@pytest.mark.parametrize("kind", ROUNDING)
def test_a_stage_by_its_defaults_leaves_the_outputs_alone(kind: str) -> None:
    model, task = heavy_tails(600)
    fast = {"epochs": 1} if kind == "quantize.qat" else {}
    kept = {"last": {"4"}, "ends": {"0", "4"}}[ROUNDING[kind]]
    for of, left in ((task, kept), (unguarded(task), set())):
        stage = STAGES.get(kind).from_spec(StageSpec(kind, fast), of)
        _, trace = stage.apply(copy_model(model), Context(task=of, teacher=model, seed=0))
        assert {path for path, why in trace.skipped.items() if why == "excluded"} == left


@pytest.mark.parametrize("kind", ["quantize.static", "quantize.qat"])
def test_nothing_that_calibration_shows_is_clipped(kind: str) -> None:
    """One item of a thousand is far out: it is among those calibrated on, and its range stays."""
    model, _ = heavy_tails(3)
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    x[371, 2] = 40.0
    with torch.no_grad():
        y = model(x)
    task = petra.regression((x, y), (x, y), (x, y))
    fast = {"epochs": 2} if kind == "quantize.qat" else {}
    spec = StageSpec(kind, {**fast, "samples": 128, "exclude": "last"})
    step = (40.0 - float(x.min())) / 255
    assert input_range(after(model, task, spec))[1] > 40.0 - step
    assert input_range(after(model, unguarded(task), spec))[1] < 20.0
