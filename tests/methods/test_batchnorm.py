"""Re-estimation of batch-norm statistics against averages computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.repair.batchnorm import EstimateBatchNorm, estimate_statistics
from petra.tasks.classification import classification


class TwoNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1, self.bn2 = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.unused, self.free = nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(torch.relu(self.drop(self.bn1(self.conv(x))))).mean((2, 3))


def test_statistics_are_the_averages_over_batches() -> None:
    torch.manual_seed(0)
    model, batches = TwoNorms().train(), [torch.randn(8, 2, 6, 6) + i for i in range(3)]
    model.bn1.momentum = 0.3
    state = {k: v.clone() for k, v in model.state_dict().items()}
    skipped = estimate_statistics(model, batches)
    assert skipped == {"unused": "is not called"}
    with torch.no_grad():
        first = [model.conv(x) for x in batches]
        second = []
        for h in first:  # normalised by its own batch, without dropout
            mean, var = (
                h.mean((0, 2, 3), keepdim=True),
                h.var((0, 2, 3), keepdim=True, unbiased=False),
            )
            second.append(torch.relu((h - mean) / (var + 1e-5).sqrt()))
    for norm, seen in ((model.bn1, first), (model.bn2, second)):
        torch.testing.assert_close(
            norm.running_mean, torch.stack([h.mean((0, 2, 3)) for h in seen]).mean(0)
        )
        torch.testing.assert_close(
            norm.running_var, torch.stack([h.var((0, 2, 3)) for h in seen]).mean(0)
        )
    assert (model.bn1.momentum, model.bn2.momentum) == (0.3, 0.1)
    assert model.training
    assert all(
        torch.equal(v, state[k]) for k, v in model.state_dict().items() if not k.startswith("bn")
    )


def test_statistics_that_no_longer_fit_are_put_right() -> None:
    """What pruning does to the layers before: half of the channels are gone, and the sums behind
    them are smaller.
    """
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    y = (x.sum(1) > 0).long()
    task = classification((x, y), (x, y), (x, y))
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 8), nn.BatchNorm1d(8))
    estimate_statistics(model, [x])
    with torch.no_grad():
        model[2].weight[:, ::2] = 0
    model.eval()
    with torch.no_grad():
        assert model(x).mean(0).abs().max() > 0.2
        result, trace = EstimateBatchNorm(samples=256).apply(
            model, Context(task=task, teacher=model, seed=0)
        )
        assert result(x).mean(0).abs().max() < 1e-3
    assert trace.touched == ("3",)
    assert trace.details == {"samples": 256}


def test_models_without_usable_norms_are_refused() -> None:
    x, y = torch.randn(64, 2, 6, 6), torch.zeros(64, dtype=torch.long)
    task = classification((x, y), (x, y), (x, y))

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    for model, reason in ((nn.Flatten(), "no batch norm"), (Unused(), "is called")):
        with pytest.raises(StageRefused, match=reason):
            EstimateBatchNorm().apply(model, Context(task=task, teacher=model, seed=0))
