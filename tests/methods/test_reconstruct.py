"""Reconstruction: the least-squares mathematics, and that a pruned model really computes more of
what it did.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.prune.structured import StructuredPrune
from petra.methods.repair.reconstruct import Reconstruct, design, outputs_as_rows, ridge
from petra.testing.stage_suite import small_problem

G = torch.Generator().manual_seed(0)
MODEL, TASK = small_problem()
CONTEXT = Context(task=TASK, teacher=MODEL, seed=1)


def test_without_damping_it_is_least_squares() -> None:
    x, y = (torch.randn(50, k, generator=G, dtype=torch.float64) for k in (6, 3))
    got = ridge(x.T @ x, x.T @ y, torch.zeros(6, 3, dtype=torch.float64), 1e-12)
    assert torch.allclose(got, torch.linalg.lstsq(x, y).solution, atol=1e-8)


def test_damping_is_the_minimum_of_the_damped_sum() -> None:
    """Against gradient descent on the written-out objective."""
    x, y, prior = (
        torch.randn(s, generator=G, dtype=torch.float64) for s in ((20, 4), (20, 2), (4, 2))
    )
    penalty = 0.5 * (x.T @ x).diagonal().mean()
    w = prior.clone().requires_grad_(True)
    descent = torch.optim.LBFGS([w], max_iter=200, tolerance_grad=1e-12)

    def closure() -> torch.Tensor:
        descent.zero_grad()
        loss = (x @ w - y).square().sum() + penalty * (w - prior).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    descent.step(closure)  # type: ignore[no-untyped-call]
    assert torch.allclose(ridge(x.T @ x, x.T @ y, prior, 0.5), w.detach(), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), torch.randn(2, 3, 8, 8, generator=G)),
        (nn.Conv2d(3, 5, (1, 3), dilation=2), torch.randn(2, 3, 8, 8, generator=G)),
        (nn.Linear(4, 6), torch.randn(2, 7, 4, generator=G)),
        (nn.Linear(4, 6, bias=False), torch.randn(3, 4, generator=G)),
    ],
)
def test_design_times_weight_is_the_layer(layer: nn.Conv2d | nn.Linear, x: torch.Tensor) -> None:
    weight = layer.weight.reshape(len(layer.weight), -1).T.double()
    if layer.bias is not None:
        weight = torch.cat([weight, layer.bias[None].double()])
    assert torch.allclose(design(layer, x) @ weight, outputs_as_rows(layer, layer(x)), atol=1e-5)


def test_a_pruned_model_comes_closer_to_the_untouched_one() -> None:
    pruned, _ = StructuredPrune(ratio=0.4).apply(copy.deepcopy(MODEL), CONTEXT)
    repaired, trace = Reconstruct(samples=128).apply(copy.deepcopy(pruned), CONTEXT)
    x = TASK.val.head(32)
    with torch.no_grad():
        before, after = ((m(x) - MODEL(x)).norm() for m in (pruned, repaired))
    assert after < 0.7 * before
    errors = trace.details["relative_error_before_after"]
    assert isinstance(errors, dict)
    assert set(errors) == set(trace.touched)
    assert all(after <= before for before, after in errors.values())


def test_only_layers_that_lost_inputs_are_touched() -> None:
    pruned, _ = StructuredPrune(ratio=0.4).apply(copy.deepcopy(MODEL), CONTEXT)
    before = copy.deepcopy(pruned.state_dict())
    repaired, trace = Reconstruct(samples=64).apply(pruned, CONTEXT)
    changed = {
        k.rpartition(".")[0]
        for k, v in repaired.state_dict().items()
        if not torch.equal(v, before[k])
    }
    assert changed == set(trace.touched)
    assert changed <= {"block1.conv2", "block2.conv2", "block3.conv2", "head"}


def test_it_refuses_a_model_that_lost_nothing() -> None:
    with pytest.raises(StageRefused, match="no layer lost input channels"):
        Reconstruct().apply(copy.deepcopy(MODEL), CONTEXT)
