"""A training in pieces is the training in one go, bit for bit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils.data import Dataset

from petra.model.channels.weights import channel_weights
from petra.model.description.state_hash import state_hash
from petra.model.trainability import freeze
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.training.effort import Effort, TrainingState
from petra.training.loop import TrainConfig, TrainResult, fit
from petra.training.mixup import Mixup
from petra.training.penalties import make_channel_penalty

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(70, 3, 6, 6, generator=G), torch.arange(70) % 4


class Memory:
    """States as they come back from files."""

    def __init__(self) -> None:
        self.files: dict[int, tuple[bytes, str]] = {}

    def load(self, training: int) -> TrainingState | None:
        if training not in self.files:
            return None
        tensors, record = self.files[training]
        return TrainingState(load(tensors), json.loads(record))

    def save(self, training: int, state: TrainingState) -> None:
        self.files[training] = (save(dict(state.tensors)), json.dumps(dict(state.record)))


class Noisy(Dataset[Any]):
    """Augments its items with every global generator there is, as people's data sets do."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        noise = torch.randn(()) + random.random() + np.random.rand()
        return X[i] * (1 + 0.1 * float(noise)), int(Y[i])


def make() -> tuple[nn.Module, Task]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3),
            nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4),
        )  # fmt: skip
    return model, classification((X, Y), (X[:20], Y[:20]), (X[:20], Y[:20]))


Parts = Callable[[nn.Module, Task], Mapping[str, Any]]


def mixed(model: nn.Module, task: Task) -> Mapping[str, Any]:
    return {"augment": Mixup(0.4, seed=3)}


def growing(model: nn.Module, task: Task) -> Mapping[str, Any]:
    groups = channel_weights(model, task.example(2), generator=torch.Generator().manual_seed(0))
    return {"penalty": make_channel_penalty("growing", groups, weight=0.1, steps=12)}


def plain(model: nn.Module, task: Task) -> Mapping[str, Any]:
    return {}


def noisy(model: nn.Module, task: Task) -> Mapping[str, Any]:
    def augment(x: Any, generator: torch.Generator) -> Any:
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    object.__setattr__(task, "train", replace(task.train, source=Noisy()))
    object.__setattr__(task, "augment", augment)
    return {}


def trained(config: TrainConfig, parts: Parts, effort: Effort) -> tuple[str, TrainResult]:
    model, task = make()
    random.seed(1)
    np.random.seed(1)
    result = fit(model, task, config, seed=5, effort=effort, **parts(model, task))
    return state_hash(model), result


@pytest.mark.parametrize("parts", [plain, mixed, growing, noisy])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("pieces", [("1/2", "2"), ("1", "3/2")], ids=["inside", "at an end"])
def test_pieces_make_the_whole(optimizer: str, parts: Parts, pieces: tuple[str, ...]) -> None:
    """Stopped inside of epochs and at their ends; four steps an epoch."""
    config = TrainConfig(epochs=3, lr=0.05, optimizer=optimizer, batch_size=16)
    whole, result = trained(config, parts, Effort())
    memory, steps = Memory(), 0
    for piece in pieces:
        stopped, part = trained(config, parts, Effort(Fraction(piece), memory))
        assert stopped != whole
        assert (part.continued, part.steps) == (steps, int(4 * Fraction(piece)))
        assert part.curve == result.curve[: part.steps // 4]
        steps = part.steps
    again, rest = trained(config, parts, Effort(None, memory))
    assert again == whole
    assert (rest.continued, rest.steps, rest.curve) == (steps, 12, result.curve)
    assert (rest.score_before, rest.score_after) == (result.score_before, result.score_after)


def test_an_effort_is_spent_over_several_trainings() -> None:
    config = TrainConfig(epochs=1, lr=0.05, batch_size=16)
    model, task = make()
    effort = Effort(Fraction(3, 2))
    steps = [fit(model, task, config, seed=n, effort=effort).steps for n in range(3)]
    assert steps == [4, 2, 0]


@pytest.mark.parametrize("change", [{"epochs": 4}, {"batch_size": 8}])
def test_a_state_of_another_training_is_left_alone(change: dict[str, int]) -> None:
    config, memory = TrainConfig(epochs=3, lr=0.05, batch_size=16), Memory()
    trained(config, plain, Effort(Fraction(1), memory))
    other = replace(config, **change)
    again, result = trained(other, plain, Effort(None, memory))
    assert result.continued == 0
    assert again == trained(other, plain, Effort())[0]


def test_a_state_that_is_further_on_does_not_serve() -> None:
    config, memory = TrainConfig(epochs=3, lr=0.05, batch_size=16), Memory()
    trained(config, plain, Effort(Fraction(2), memory))
    short, result = trained(config, plain, Effort(Fraction(1), memory))
    assert result.continued == 0
    assert short == trained(config, plain, Effort(Fraction(1)))[0]


def test_what_is_frozen_is_not_kept_and_pieces_still_make_the_whole() -> None:
    config, memory = TrainConfig(epochs=2, lr=0.05, batch_size=16), Memory()

    def final(effort: Effort) -> str:
        model, task = make()
        freeze(model, but=[model[7]])
        fit(model, task, config, seed=5, effort=effort)
        return state_hash(model)

    whole = final(Effort())
    final(Effort(Fraction(1, 2), memory))
    names = {n for n in load(memory.files[0][0]) if n.startswith("model.") and "running" not in n}
    assert names == {"model.7.weight", "model.7.bias", "model.1.num_batches_tracked"}
    assert final(Effort(None, memory)) == whole


def test_a_state_that_holds_frozen_weights_too_serves() -> None:
    """Such as were written before they were left out."""
    config, memory = TrainConfig(epochs=2, lr=0.05, batch_size=16), Memory()
    model, task = make()
    freeze(model, but=[model[7]])
    fit(model, task, config, seed=5, effort=Effort(Fraction(1), memory))
    tensors, record = memory.files[0]
    frozen = {f"model.{n}": p.detach().contiguous() for n, p in model.named_parameters()}
    memory.files[0] = (save({**frozen, **load(tensors)}), record)
    model, task = make()
    freeze(model, but=[model[7]])
    result = fit(model, task, config, seed=5, effort=Effort(None, memory))
    assert result.continued == result.steps // 2 > 0
