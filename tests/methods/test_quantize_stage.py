"""What one asks of `quantize.static` reaches the graph: every parameter, through the stage."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import StageRefused
from petra.core.kernels import WEIGHT_MAX
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage
from petra.methods.quantize.calibration import Calibration
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.methods.quantize.observers import mse_range
from petra.methods.quantize.ptq import quantize_static
from petra.methods.quantize.qat import QuantizationAwareTrain
from petra.methods.quantize.static import StaticQuantize
from petra.methods.quantize.weights import WeightQuantize
from petra.tasks.base import Task
from petra.tasks.classification import classification

DEFAULTS: dict[str, Any] = {
    "observer": "minmax",
    "exclude": frozenset(),
    "weight_max": WEIGHT_MAX,
    "equalize": "none",
    "alpha": 0.5,
    "correct_bias": False,
    "keep_float": 0,
}


class Layers(nn.Module):
    """A pair to equalise, inputs to smooth, biases to correct, one layer more sensitive than the
    others.
    """

    def __init__(self, inputs: int = 64) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(inputs, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.a.weight *= torch.logspace(-1, 1, 16)[:, None]
            self.b.weight[:, 0] *= 10

    def forward(self, x: Tensor) -> Tensor:
        return self.c(functional.gelu(self.b(functional.relu(self.a(x)))))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Layers().eval()


def task_of(x: Tensor) -> Task:
    split = (x, torch.arange(len(x)) % 3)
    return classification(split, split, split)


def heavy_tailed(n: int = 600) -> Tensor:
    """(n, 64), one value of which is five times as large as any other."""
    x = torch.randn(n, 64, generator=torch.Generator().manual_seed(0))
    x[n // 2, 3] = 20.0
    return x


def applied(
    model: nn.Module, task: Task, *, seed: int = 0, **settings: Any
) -> tuple[nn.Module, StageTrace]:
    stage = StaticQuantize(**({"samples": 600, "observer": "minmax"} | settings))
    return stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=seed))


def input_range(result: nn.Module) -> tuple[float, float]:
    """Of the codes that the model's input is rounded to."""
    assert isinstance(result, torch.fx.GraphModule)
    first = next(n for n in result.graph.nodes if "quantize_per_tensor" in str(n.target))
    scale, zero_point = first.args[1:3]
    return -zero_point * scale, (255 - zero_point) * scale


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({"equalize": "cross_layer"}, {}),
        ({"equalize": "smooth"}, {}),
        ({"equalize": "smooth", "alpha": 0.75}, {}),
        ({"correct_bias": True}, {}),
        ({"keep_float": 1}, {}),
        ({"weight_max": 7}, {}),
        ({"exclude": "first"}, {"exclude": frozenset({"a"})}),
        ({"exclude": "last"}, {"exclude": frozenset({"c"})}),
        ({"exclude": "ends"}, {"exclude": frozenset({"a", "c"})}),
        ({"exclude": "b"}, {"exclude": frozenset({"b"})}),
        ({"observer": "histogram"}, {}),
        ({"observer": "percentile"}, {}),
        ({"observer": "mse"}, {}),
    ],
    ids=lambda value: ",".join(value),
)
def test_every_setting_acts(
    model: nn.Module, settings: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """As the function called with it does, and otherwise than without it."""
    x = heavy_tailed()
    task = task_of(x)
    result, trace = applied(model, task, **settings)
    calibration = Calibration(Context(task=task, teacher=model, seed=0), 600)
    expected = quantize_static(model, x[:2], calibration, **(DEFAULTS | settings | arguments))
    one_less = {key: DEFAULTS[key] for key in list(settings)[-1:]}
    without = quantize_static(model, x[:2], calibration, **(DEFAULTS | settings | one_less))
    assert trace.skipped == expected.layers_skipped
    with torch.no_grad():
        assert torch.equal(result(x), expected.model(x))
        assert not torch.equal(result(x), without.model(x))


def test_observers_choose_the_ranges_that_are_theirs(model: nn.Module) -> None:
    """Of a value far out: minmax keeps it, percentile gives it up, mse clips it where that costs
    least.
    """
    x = heavy_tailed()
    task, values = task_of(x), x.flatten().double()
    low, high = float(values.min()), float(values.max())
    step = (high - low) / 255
    ranges = {
        o: input_range(applied(model, task, observer=o)[0]) for o in ("minmax", "percentile", "mse")
    }
    assert ranges["minmax"] == pytest.approx((low, high), abs=step)
    kept = values.sort().values[3:-3]  # a 10,000th of 38,400 on either side
    assert ranges["percentile"] == pytest.approx((float(kept[0]), float(kept[-1])), abs=0.02)
    best = mse_range(values, torch.ones(len(values)), low, high, 256)
    assert ranges["mse"] == pytest.approx(best, abs=2 * step)
    assert ranges["percentile"][1] < 0.3 * high
    assert ranges["mse"][1] < 0.95 * high


def test_calibration_sees_exactly_the_samples_asked_for(model: nn.Module) -> None:
    """Item i is i everywhere, so that the largest item seen is the upper end of the input's
    range.
    """
    x = torch.arange(1.0, 301.0).reshape(-1, 1).expand(-1, 64).contiguous()
    task = task_of(x)

    def order(seed: int) -> Tensor:
        drawn = Context(task=task, teacher=model, seed=seed).seed_for("calibration")
        return torch.cat([inputs[:, 0] for inputs, _ in task.train.batches(64, seed=drawn)])

    def new_extremes(items: Tensor) -> bool:
        """The 100th item is the largest of the first 100, and one after it is larger."""
        return bool(items[:99].max() < items[:100].max() < items[:101].max())

    seed = next(seed for seed in range(10**6) if new_extremes(order(seed)))
    result, trace = applied(model, task, seed=seed, samples=100)
    assert trace.details["calibration_samples"] == trace.details["calibration_samples_asked"] == 100
    assert input_range(result) == (0.0, pytest.approx(float(order(seed)[:100].max()), rel=1e-6))
    _, trace = applied(model, task, samples=1000)
    assert trace.details["calibration_samples"] == 300
    assert trace.details["calibration_samples_asked"] == 1000


@pytest.mark.parametrize(
    "stage",
    [StaticQuantize, QuantizationAwareTrain, WeightQuantize, DynamicQuantize],
    ids=lambda stage: stage.name,
)
def test_convolutions_may_stay_float(stage: type[Stage], model: nn.Module) -> None:
    convolutional = zoo.Temporal().eval()
    task = task_of(zoo.rows(32, 2, 20))
    fast = {"epochs": 1, "batch_size": 16} if stage is QuantizationAwareTrain else {}
    context = Context(task=task, teacher=convolutional, seed=0)
    _, trace = stage(exclude="convolutions", **fast).apply(copy.deepcopy(convolutional), context)
    assert trace.touched == ("fc",)
    assert trace.skipped == {"a": "excluded", "b": "excluded"}
    with pytest.raises(StageRefused, match="the model has none"):
        stage(exclude="convolutions", **fast).apply(
            model, Context(task=task, teacher=model, seed=0)
        )
