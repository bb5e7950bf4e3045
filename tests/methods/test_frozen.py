"""Training leaves alone what an earlier stage froze, and trains what a person had frozen."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.methods.distill.distill import Distill
from petra.methods.quantize.qat import QuantizationAwareTrain
from petra.methods.training import TrainingStage
from petra.methods.tune.tune import Tune
from petra.model.trainability import freeze
from petra.tasks.base import Task
from petra.tasks.classification import classification

QUICK = {"epochs": 1, "batch_size": 256}


def trained(
    stage: TrainingStage, problem: tuple[nn.Module, Task]
) -> tuple[nn.Module, dict[str, object]]:
    model, task = problem
    result, trace = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=1))
    return result, dict(trace.details)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 16), nn.BatchNorm1d(16)
        self.second = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))


def normed_problem() -> tuple[nn.Module, Task]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=g)
    y = x[:, :3].argmax(1)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Normed().eval(), classification((x, y), (x, y), (x, y))


@pytest.mark.parametrize("stage", [Tune(epochs=1, lr=0.1), Distill(epochs=1, lr=0.1)])
def test_what_is_frozen_is_not_trained(stage: TrainingStage) -> None:
    model, task = normed_problem()
    freeze(model, but=[model.second])
    result, trace = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=1))
    before = model.state_dict()
    changed = {name for name, t in result.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"second.weight", "second.bias"}, "nor are the statistics of a frozen norm"
    assert dict(trace.skipped) == dict.fromkeys(("first", "norm"), "frozen by an earlier stage")


def test_what_a_person_froze_is_trained_in_a_pipeline() -> None:
    model, task = normed_problem()
    model.requires_grad_(False)
    result, (trace,) = apply_pipeline(
        model,
        Pipeline((StageSpec("tune", {"epochs": 1, "lr": 0.1}),)),
        lambda prefix: Context(task=task, teacher=model, seed=1),
        cache=None,
        on_stage=lambda i, s: None,
    )
    assert trace.touched == ("first", "norm", "second")
    assert all(p.requires_grad for p in result.parameters())
    assert not any(p.requires_grad for p in model.parameters())


def test_a_model_that_is_frozen_altogether_is_refused() -> None:
    problem = normed_problem()
    freeze(problem[0])
    with pytest.raises(StageRefused, match="an earlier stage has frozen all weights"):
        trained(Tune(**QUICK), problem)


@pytest.mark.parametrize("penalty", ["orthogonality", "group_lasso", "bn_l1"])
def test_penalties_act_on_what_is_trained(penalty: str) -> None:
    model, task = normed_problem()
    freeze(model, but=[model.norm if penalty == "bn_l1" else model.first])
    stage = Tune(**QUICK, penalty=penalty)
    _, details = trained(stage, (model, task))
    assert details["penalised"] == ["norm" if penalty == "bn_l1" else "first"]
    freeze(model, but=[model.second])
    if penalty != "orthogonality":
        with pytest.raises(StageRefused, match="finds no"):
            trained(stage, (model, task))


def test_quantization_aware_training_leaves_frozen_layers() -> None:
    model, task = normed_problem()
    freeze(model, but=[model.second])
    stage = QuantizationAwareTrain(epochs=1, samples=64)
    _, trace = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=1))
    assert trace.details["untrained"] == dict.fromkeys(
        ("first", "norm"), "frozen by an earlier stage"
    )
