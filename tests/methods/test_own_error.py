"""Mixed precision by the task's own error: what is chance cancels, what the metric does not see
does not count.
"""

from __future__ import annotations

import pytest
import torch
from regression_parts import heavy_tails
from torch import Tensor, nn

import petra
from petra.core.measurement import LARGEST
from petra.core.pipeline import StageSpec
from petra.methods.base import Context
from petra.methods.quantize.static import StaticQuantize
from petra.methods.quantize.worse import Moved, RiseOfError, moved, relative_distance
from petra.tasks.base import Task
from petra.tasks.inputs import Outputs

N = 400


def mse(prediction: Tensor, target: Tensor) -> float:
    return float((prediction - target).square().mean())


def task(metric: object) -> Task:
    x = torch.zeros(N, 2)
    pair = (x, torch.zeros(N, 2))
    return petra.regression(pair, pair, pair, metric=metric)


def normal(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(N, 2, generator=torch.Generator().manual_seed(seed))


def test_of_a_squared_error_it_is_the_squared_distance_whatever_the_residuals() -> None:
    targets, reference, change = normal(0), normal(1), normal(2, 0.1)
    rise = RiseOfError(task(petra.scorer(mse, maximize=False)), targets)
    found = rise({"y": reference + change}, {"y": reference})
    assert found == pytest.approx(float(change.square().mean()), rel=1e-4)
    # While what the error itself does is mostly chance: this time it falls.
    against = -change * (change * (reference - targets)).sign()
    assert mse(reference + against, targets) < mse(reference, targets)
    assert rise({"y": reference + against}, {"y": reference}) == pytest.approx(found, rel=1e-4)


def test_an_absolute_error_hides_what_is_smaller_than_itself() -> None:
    targets, reference = torch.zeros(N, 2), torch.ones(N, 2)
    rise = RiseOfError(task("mae"), targets)
    assert rise({"y": reference + 0.9}, {"y": reference}) == pytest.approx(0.0, abs=1e-6)
    assert rise({"y": reference + 1.5}, {"y": reference}) == pytest.approx(0.5, rel=1e-4)


def test_more_is_worse_in_either_direction_of_the_metric() -> None:
    def score(prediction: Tensor, target: Tensor) -> float:
        return -mse(prediction, target)

    targets, reference = normal(0), normal(1)
    down = RiseOfError(task(petra.scorer(mse, maximize=False)), targets)
    up = RiseOfError(task(petra.scorer(score, maximize=True)), targets)
    for size in (0.01, 0.1, 1.0):
        after = {"y": reference + normal(3, size)}
        assert down(after, {"y": reference}) == pytest.approx(up(after, {"y": reference}), rel=1e-6)
        assert down(after, {"y": reference}) > 0


def test_what_is_undefined_counts_by_how_far_it_moves() -> None:
    rise = RiseOfError(task(petra.scorer(lambda p, t: float("nan"), maximize=False)), normal(0))
    after, before = {"y": normal(1)}, {"y": normal(2)}
    assert rise(after, before) == moved(after, before)
    assert moved(after, before) == relative_distance(after["y"], before["y"])


def test_a_score_may_spoil_what_it_is_given() -> None:
    """The untouched outputs are compared with those of every layer in turn."""

    def clamped(prediction: Tensor, target: Tensor) -> float:
        return mse(prediction.clamp_(min=0), target.sub_(1.0))

    targets, before = normal(0), {"y": normal(1)}
    after, kept = {"y": before["y"] + normal(2, 0.1)}, (normal(0), normal(1))
    rise = RiseOfError(task(petra.scorer(clamped, maximize=False)), targets)
    assert rise(after, before) == rise(after, before)
    assert torch.equal(targets, kept[0])
    assert torch.equal(before["y"], kept[1])


def test_outputs_that_are_judged_count_and_no_others() -> None:
    """Of a task of one's own that looks at all of them; a constant is no output of an item's."""

    def every(outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        return float((outputs["a"] - targets).abs().mean())

    pair = (torch.zeros(N, 2), torch.zeros(N, 2))
    made = {"loss": lambda p, t: p.mean(), "maximize": True}
    all_of_them = petra.task(pair, pair, pair, score=every, **made)  # type: ignore[arg-type]
    first = petra.task(pair, pair, pair, score=lambda p, t: 0.0, **made)  # type: ignore[arg-type]
    before = {"a": normal(1), "b": normal(2)}
    after = {"a": before["a"] + normal(3, 0.1), "b": before["b"] + normal(4, 0.5)}
    apart = {k: relative_distance(after[k], before[k]) for k in after}
    assert Moved(all_of_them)(after, before) == pytest.approx(apart["a"] + apart["b"])
    assert Moved(first)(after, before) == apart["a"] == moved(after, before)


def test_decisions_move_by_the_share_that_differs() -> None:
    before = torch.arange(20) % 5
    after = torch.where(torch.arange(20) < 3, before + 1, before)
    assert relative_distance(after, before) == pytest.approx(3 / 20)
    assert relative_distance(after > 2, before > 2) == pytest.approx(1 / 20)


def test_what_is_not_finite_is_worst_and_can_be_written() -> None:
    before, broken = normal(0), torch.full((N, 2), torch.nan)
    assert relative_distance(broken, before) == LARGEST
    assert relative_distance(normal(0, 1e15), before) < LARGEST
    rise = RiseOfError(task("rmse"), normal(1))
    assert rise({"y": broken}, {"y": before}) == LARGEST


class Two(nn.Module):
    """Two outputs, of which the metric looks at the first; the layers to the second are worse to
    round by far.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 16), nn.Linear(6, 16)
        self.c, self.d = nn.Linear(16, 1), nn.Linear(16, 1)
        with torch.no_grad():
            self.b.weight[:, 0] *= 100
            self.d.weight *= 100

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.tanh(self.a(x)), torch.nn.functional.gelu(self.b(x))
        return torch.cat([self.c(first), self.d(second)], 1)


def first_only(prediction: Tensor, target: Tensor) -> float:
    return float((prediction[:, 0] - target[:, 0]).square().mean())


def test_layers_are_kept_where_the_tasks_error_comes_from() -> None:
    model = Two().eval()
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x)
    pair = (x, y + 0.01 * torch.randn(y.shape, generator=torch.Generator().manual_seed(2)))
    kept = {}
    for name, metric in (("own", petra.scorer(first_only, maximize=False)), ("all", "rmse")):
        of = petra.regression(pair, pair, pair, metric=metric)
        stage = StaticQuantize(keep_float=1, observer="minmax", samples=200)
        _, trace = stage.apply(Two().eval(), Context(task=of, teacher=model, seed=0))
        ranking = trace.details["sensitivity"]
        assert isinstance(ranking, dict)
        kept[name] = next(iter(ranking))
    assert kept["own"] in ("a", "c")
    assert kept["all"] in ("b", "d")


def test_keeping_layers_is_part_of_a_rehearsal() -> None:
    model, of = heavy_tails(90)
    context = Context(task=of, teacher=model, seed=0)
    stage = StaticQuantize.from_spec(
        StageSpec("quantize.static", {"exclude": "last", "keep_float": 1}), of
    )
    assert stage.rehearse(model, context) is model
    stage = StaticQuantize.from_spec(StageSpec("quantize.static", {"keep_float": 1}), of)
    with pytest.raises(petra.PetraError, match="1 of 1 layers are to stay in float"):
        stage.rehearse(model, context)
