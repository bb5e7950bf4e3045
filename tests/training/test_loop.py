"""The training loop: learns, is reproducible, takes nothing from validation, notices divergence."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra.core.errors import DivergedError
from petra.tasks.classification import classification
from petra.tasks.data import Split
from petra.tasks.inputs import Inputs, Outputs, main_output
from petra.training.loop import TrainConfig, fit, learning_rate_factor, predict, steps_per_epoch
from petra.training.precision import has_fast_bf16
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
    assert result.score_after > 0.8
    assert task.score(*predict(model, task.val)).mean == pytest.approx(result.score_after)
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


def test_the_last_epoch_is_kept_whatever_validation_says() -> None:
    """With a rate that wrecks the model after a good start, the weights left are the last: those
    of the best epoch would be chosen by the split that candidates are judged by.
    """
    task, model = digits_task(), fresh()
    fit(model, task, TrainConfig(epochs=3, lr=0.1, batch_size=64), seed=0)
    wild = TrainConfig(epochs=4, lr=3.0, batch_size=64, clip_norm=0.0, warmup=0.0)
    result = fit(model, task, wild, seed=0)
    left = task.score(*predict(model, task.val)).mean
    assert left == pytest.approx(result.score_after) == pytest.approx(result.curve[-1])
    assert len(result.curve) == 4
    assert left < max(result.score_before, *result.curve), "the case does not exercise it"


def test_what_validation_says_changes_no_weight() -> None:
    task, states = digits_task(), []
    for val in (task.val, task.test):
        model = fresh()
        fit(
            model,
            dataclasses.replace(task, val=val),
            TrainConfig(epochs=2, lr=0.5, batch_size=64),
            seed=0,
        )
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_divergence_is_an_error() -> None:
    with pytest.raises(DivergedError, match="loss is"):
        fit(
            fresh(),
            digits_task(),
            TrainConfig(epochs=2, lr=1e30, clip_norm=0.0, warmup=0.0),
            seed=0,
        )


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
        loss_fn=lambda outputs, inputs, target: main_output(outputs).sum() * 0,
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


def test_zeros_of_marked_modules_stay_zero_and_others_do_not() -> None:
    task, model = digits_task(), fresh()
    marked, free = model.stem[0], model.down1[0]
    with torch.no_grad():
        for layer in (marked, free):
            layer.weight.view(-1)[::2] = 0.0
    marked.keep_zeros = True
    before = marked.weight.detach().clone()
    fit(model, task, TrainConfig(epochs=2, lr=0.1, batch_size=64), seed=0)
    assert torch.equal(marked.weight == 0, before == 0)
    assert not torch.equal(marked.weight, before)
    assert float((free.weight == 0).float().mean()) < 0.1


def test_the_penalty_finds_the_gradient_of_the_loss_alone() -> None:
    """And the two gradients add up: a step equals one on the sum of both."""
    task, config = (
        digits_task(),
        TrainConfig(epochs=1, lr=0.1, batch_size=1024, clip_norm=0.0, weight_decay=0.0),
    )
    expected, got = fresh(), fresh()

    def both(outputs: Outputs, inputs: Inputs, target: Tensor) -> Tensor:
        return task.loss()(outputs, target) + 0.1 * expected.classifier.weight.square().sum()

    seen: list[Tensor | None] = []

    def penalty() -> Tensor:
        seen.append(got.classifier.weight.grad.clone())
        return 0.1 * got.classifier.weight.square().sum()

    start = got.classifier.weight.detach().clone()
    fit(expected, task, config, seed=0, loss_fn=both)
    fit(got, task, config, seed=0, penalty=penalty)
    assert torch.allclose(expected.classifier.weight, got.classifier.weight, atol=1e-6)
    alone = fresh()
    fit(alone, task, config, seed=0)
    # Nesterov's first step: 1 + momentum.
    rate = 0.1 * learning_rate_factor(0, 1, schedule="cosine", warmup=0.05) * 1.9
    assert torch.allclose(start - alone.classifier.weight, rate * seen[0], atol=1e-5)


def test_augmentation_of_the_caller_comes_after_the_tasks_own() -> None:
    task, seen = digits_task(), []
    own = dataclasses.replace(task, augment=lambda inputs, g: torch.ones_like(inputs))

    def double(inputs: Inputs, g: torch.Generator) -> Inputs:
        assert isinstance(inputs, Tensor)
        seen.append(inputs.unique().tolist())
        return 2 * inputs

    def loss(outputs: Outputs, inputs: Inputs, target: Tensor) -> Tensor:
        assert isinstance(inputs, Tensor)
        seen.append(inputs.unique().tolist())
        return main_output(outputs).square().mean()

    fit(
        fresh(),
        own,
        TrainConfig(epochs=1, lr=0.01, batch_size=1024),
        seed=0,
        loss_fn=loss,
        augment=double,
    )
    assert seen == [[1.0], [2.0]]


class Counted(torch.utils.data.IterableDataset[tuple[Tensor, Tensor]]):
    """Seven items, and no length."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(torch.zeros(3), torch.tensor(0))] * 7)


@pytest.mark.parametrize("n", [5, 8, 9, 16])
def test_steps_are_counted_without_reading(n: int) -> None:
    pair = (torch.zeros(n, 3), torch.zeros(n, dtype=torch.int64))
    loader = DataLoader(TensorDataset(*pair), batch_size=4)
    listed = [(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))] * 3
    for source in (pair, loader, listed, DataLoader(Counted(), batch_size=3)):
        split = Split.of(source, name="train")
        assert steps_per_epoch(split, 8) == sum(1 for _ in split.batches(8, seed=0, drop_last=True))


class Words(nn.Module):
    """Named integer inputs, outputs in a mapping, as Hugging Face models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        mask = attention_mask.unsqueeze(-1).float()
        pooled = (self.table(input_ids) * mask).sum(1) / mask.sum(1)
        return {"pooled": pooled, "logits": self.head(pooled)}


def test_it_learns_from_named_integers() -> None:
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 20, (256, 6), generator=g)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    data = (inputs, (ids < 10).sum(1).gt(3).long())
    task = classification(data, data, data)
    result = fit(
        Words(), task, TrainConfig(epochs=10, lr=0.05, optimizer="adamw", batch_size=32), seed=0
    )
    assert result.score_after > 0.95


@pytest.mark.parametrize(("capability", "fast"), [(7, False), (8, True)])
def test_bf16_is_fast_on_gpus_that_need_not_emulate_it(
    monkeypatch: pytest.MonkeyPatch, capability: int, fast: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=capability)
    )
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert has_fast_bf16("cuda") == fast
