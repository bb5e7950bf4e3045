"""The stage of single weights, and what keeps their zeros afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from zeroed_parts import G, kinds, weighted
from zeroed_runs import MODEL, TASK, zeros

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.methods.prune.unstructured import UnstructuredPrune
from petra.tasks.base import Task
from petra.workloads.digits import DigitsNet

CONTEXT = Context(task=TASK, teacher=MODEL, seed=1)


def applied(**parameters: object) -> tuple[nn.Module, StageTrace]:
    return UnstructuredPrune(**parameters).apply(copy.deepcopy(MODEL), CONTEXT)


# -- the stage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "wanda"])
@pytest.mark.parametrize("scope", ["global", "per_layer"])
def test_the_share_asked_for_becomes_zero(scope: str, importance: str) -> None:
    model, trace = applied(sparsity=0.6, scope=scope, importance=importance)
    gone = zeros(model)
    total = sum(z.numel() for z in gone.values())
    assert sum(int(z.sum()) for z in gone.values()) / total == pytest.approx(0.6, abs=0.001)
    assert trace.details["sparsity"] == pytest.approx(0.6, abs=0.001)
    shares = [float(z.float().mean()) for z in gone.values()]
    assert (max(shares) - min(shares) < 0.05) == (scope == "per_layer")
    before, after = trace.details["zipped_weight_bytes"]  # type: ignore[misc]
    assert after < 0.75 * before


def test_what_is_kept_is_what_was_there() -> None:
    model, _ = applied(sparsity=0.5)
    for path, layer in weighted(model).items():
        original = MODEL.get_submodule(path).weight
        kept = layer.weight != 0
        assert torch.equal(layer.weight[kept], original[kept])  # type: ignore[index]


def test_two_in_every_four_inputs_remain() -> None:
    model, trace = applied(pattern="two_of_four")
    for path in trace.touched:
        weight: Tensor = model.get_submodule(path).weight  # type: ignore[assignment]
        fours = weight.movedim(1, -1).unflatten(-1, (-1, 4)) != 0
        assert (fours.sum(-1) == 2).all()
    assert set(trace.skipped) == {"stem.0"}  # three input channels
    assert "3 inputs" in trace.skipped["stem.0"]
    assert not (model.stem[0].weight == 0).any()  # type: ignore[union-attr, index]


def test_two_of_four_stays_inside_groups() -> None:
    model, context = kinds()
    result, trace = UnstructuredPrune(pattern="two_of_four").apply(model, context)
    assert set(trace.touched) == {"first", "grouped", "head", "unused"}
    assert set(trace.skipped) == {"up"}  # six inputs per group
    fours = result.grouped.weight.movedim(1, -1) != 0  # type: ignore[union-attr, operator]
    assert fours.shape[-1] == 4
    assert (fours.sum(-1) == 2).all()


def test_layers_that_must_stay_are_skipped_with_the_reason() -> None:
    model, context = kinds()
    model.unused.weight = model.head.weight
    nn.utils.parametrizations.weight_norm(model.first)
    result, trace = UnstructuredPrune(importance="wanda").apply(model, context)
    assert "computed from other" in trace.skipped["first"]
    assert "'unused'" in trace.skipped["head"]
    assert set(trace.touched) == {"grouped", "up"}
    assert (result.head.weight != 0).all()  # type: ignore[union-attr, operator]
    model, context = kinds()
    _, trace = UnstructuredPrune(importance="taylor").apply(model, context)
    assert "gets no gradient" in trace.skipped["unused"]


def test_refusals() -> None:
    with pytest.raises(StageRefused, match="becomes zero that is not zero already"):
        applied(sparsity=0.0001, scope="per_layer")
    with pytest.raises(StageRefused, match="no linear or convolutional"):
        UnstructuredPrune().apply(nn.Sequential(nn.BatchNorm2d(3)), CONTEXT)


def test_low_weights_cost_less_than_high_ones(digits_problem: tuple[DigitsNet, Task]) -> None:
    """Every importance beats a mask of the same share drawn at random, by far."""
    model, task = digits_problem
    context = Context(task=task, teacher=model, seed=1)
    x, y = next(task.val.batches(1000))

    def loss(m: nn.Module) -> float:
        with torch.no_grad():
            return float(task.loss()({"output": m(x)}, y))

    at_random = copy.deepcopy(model)
    for layer in weighted(at_random).values():
        layer.weight.data.mul_(torch.rand(layer.weight.shape, generator=G) > 0.5)
    for importance in ("magnitude", "taylor", "wanda"):
        pruned, _ = UnstructuredPrune(sparsity=0.5, importance=importance).apply(
            copy.deepcopy(model), context
        )
        assert loss(pruned) - loss(model) < 0.25 * (loss(at_random) - loss(model)), importance
