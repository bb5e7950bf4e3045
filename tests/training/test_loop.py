"""The training loop: learns, is reproducible, keeps the best epoch, notices divergence."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from petra.core.errors import DivergedError
from petra.tasks.base import Task
from petra.training.loop import TrainConfig, fit, learning_rate_factor, predict
from petra.workloads.digits import DigitsNet, digits_task


def fresh() -> nn.Module:
    torch.manual_seed(3)
    return DigitsNet(width=4)


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.1), ("adamw", 0.01)])
@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_it_learns(optimizer: str, lr: float, schedule: str) -> None:
    task, model = digits_task(), fresh()
    config = TrainConfig(epochs=6, lr=lr, optimizer=optimizer, schedule=schedule, batch_size=64)
    result = fit(model, task, config, seed=0)
    assert result.score_before < 0.3
    assert result.score_best > 0.8
    assert task.score(*predict(model, task.val)).mean == pytest.approx(result.score_best)
    assert not model.training


def test_same_seed_same_weights_whatever_the_global_state() -> None:
    task, states = digits_task(), []
    for noise, seed in ((1, 5), (2, 5), (3, 6)):
        model = fresh()
        torch.manual_seed(noise)
        before = torch.random.get_rng_state()
        fit(model, task, TrainConfig(epochs=1, lr=0.05), seed=seed)
        assert torch.equal(before, torch.random.get_rng_state())
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rate that wrecks the model after a good start, the weights left are those of the best epoch."""
    task, model = digits_task(), fresh()
    fit(model, task, TrainConfig(epochs=3, lr=0.1, batch_size=64), seed=0)
    scores: list[float] = []
    original = type(task).score

    def spy(self: Task, predictions: torch.Tensor, targets: torch.Tensor) -> object:
        measured = original(self, predictions, targets)
        scores.append(measured.mean)
        return measured

    monkeypatch.setattr(type(task), "score", spy)
    result = fit(model, task, TrainConfig(epochs=4, lr=3.0, batch_size=64, clip_norm=0.0, warmup=0.0), seed=0)
    epochs = scores[1:]
    assert result.score_best == max(epochs)
    assert result.best_epoch == max(i for i, s in enumerate(epochs, 1) if s == max(epochs))
    assert min(epochs) < max(epochs), "the case does not exercise the choice"


def test_divergence_is_an_error() -> None:
    with pytest.raises(DivergedError, match="loss is"):
        fit(fresh(), digits_task(), TrainConfig(epochs=2, lr=1e30, clip_norm=0.0, warmup=0.0), seed=0)


def test_penalty_and_own_loss_reach_the_gradient() -> None:
    """Training on the penalty alone shrinks what it penalises."""
    task, model = digits_task(), fresh()
    weight = model.classifier.weight
    before = float(weight.detach().norm())
    fit(
        model,
        task,
        TrainConfig(epochs=2, lr=0.05, weight_decay=0.0),
        seed=0,
        loss_fn=lambda pred, inputs, target: pred.sum() * 0,
        penalty=lambda: weight.square().sum(),
    )
    assert float(weight.detach().norm()) < 0.5 * before


def test_clipping_bounds_the_step() -> None:
    task, states = digits_task(), []
    for clip in (1e-3, 0.0):
        model = fresh()
        start = copy.deepcopy(model.state_dict())
        config = TrainConfig(epochs=1, lr=0.1, clip_norm=clip, weight_decay=0.0, batch_size=1024)
        fit(model, task, config, seed=0)
        weights = [k for k, p in model.named_parameters()]
        states.append(sum(float((model.state_dict()[k] - start[k]).norm()) for k in weights))
    assert states[0] < 0.1 * states[1]


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_schedule_rises_to_one_and_falls_to_zero(schedule: str) -> None:
    factors = [learning_rate_factor(i, 200, schedule=schedule, warmup=0.1) for i in range(201)]
    peak = factors.index(max(factors))
    assert max(factors) == pytest.approx(1.0, abs=0.02)
    assert factors[0] < 0.1
    assert factors[200] == pytest.approx(0.0, abs=1e-9)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
