"""What budgets and activations are worth, and training in decomposed form."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
import zoo
from lowrank_runs import features, ranks_of, run, task_of, tokens
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.lowrank.factorize import svd
from petra.methods.lowrank.modules import TrainableFactors
from petra.methods.lowrank.svd import SVDDecompose, _Truncation
from petra.methods.lowrank.truncation_cost import prediction_distances
from petra.model.surgery import count_parameters, layer_shapes
from petra.tasks.base import Task
from petra.training.loop import predict

# --- what a budget and activations are worth ------------------------------------------------------


def test_distances_are_those_of_models_changed_by_hand() -> None:
    torch.manual_seed(0)
    model, x = zoo.mlp().eval(), features(6)
    new = {"0": [torch.zeros(32, 10), model[0].weight.detach() * 0.9], "2": [torch.randn(24, 32)]}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = prediction_distances(
        model, [x[:4], x[4:]], {p: [lambda w=w: w for w in ws] for p, ws in new.items()}
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    reference = model(x).detach().double()
    for path, options in new.items():
        for weight, distance in zip(options, found[path], strict=True):
            changed = copy.deepcopy(model)
            changed.get_submodule(path).weight = nn.Parameter(weight)
            moved = (changed(x).detach().double() - reference).square().sum()
            assert distance == pytest.approx(
                float(moved / (reference - reference.mean()).square().sum()), rel=1e-4
            )
    nan = prediction_distances(model, [x], {"0": [lambda: torch.full((32, 10), float("nan"))]})
    assert nan == {"0": [math.inf]}


def test_distances_are_of_all_outputs_that_are_judged() -> None:
    """A head whose output comes second is not free to truncate."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"a": self.first(x), "b": 100 * self.second(x)}

    torch.manual_seed(0)
    model, x = Heads().eval(), torch.randn(32, 4)
    options = {p: [lambda n=n: torch.zeros(n, 4)] for p, n in (("first", 3), ("second", 2))}
    alone = prediction_distances(model, [x], options)
    assert alone["first"][0] > 0
    assert alone["second"] == [0.0]
    both = prediction_distances(model, [x], options, judged=lambda names: names)
    assert both["first"] == alone["first"]
    assert 0.5 < both["second"][0] < 1.5, "in units of its own spread"


@pytest.mark.parametrize("axis", ["params", "macs"])
@pytest.mark.parametrize("budget", [0.6, 0.8])
def test_a_budget_is_kept_and_well_spent(
    digits_problem: tuple[nn.Module, Task], axis: str, budget: float
) -> None:
    """Within the budget over the layers that can be decomposed, and much nearer to the model than
    any one ratio for all within it; inverted sensitivities would be farther.
    """
    model, task = digits_problem
    result, trace = run(SVDDecompose(rule="budget", budget=budget, budget_of=axis), model, task)
    eligible = run(SVDDecompose(ratio=0.05), model, task)[1].touched
    shapes = layer_shapes(model, lambda m: m(task.example(1)))

    def dense(path: str) -> int:
        weight = model.get_submodule(path).weight
        positions = math.prod(shapes[path][0][1][2:]) if weight.ndim == 4 else 1
        return weight.numel() * (positions if axis == "macs" else 1)

    records = trace.details["layers"]
    total = sum(map(dense, eligible))
    spent = sum(records[p][axis][1] if p in records else dense(p) for p in eligible)
    assert 0.6 * budget * total < spent <= budget * total
    assert all("budget" in trace.skipped[p] for p in eligible if p not in records)

    def distance(other: nn.Module) -> float:
        reference = predict(model, task.val)[0]
        return float((predict(other, task.val)[0] - reference).square().mean())

    uniform = []
    for percent in range(5, 95, 3):
        try:
            other, t = run(SVDDecompose(ratio=percent / 100), model, task)
        except StageRefused:
            break
        r = t.details["layers"]
        if sum(r[p][axis][1] if p in r else dense(p) for p in eligible) <= budget * total:
            uniform.append(distance(other))
    assert distance(result) < 0.7 * min(uniform)


def test_a_budget_out_of_reach_says_what_is_within() -> None:
    with pytest.raises(StageRefused, match="out of reach") as refusal:
        run(SVDDecompose(rule="budget", budget=0.01), zoo.mlp(), task_of(features, 3))
    assert "at least 0." in refusal.value.hint


def test_activations_beat_weights_on_a_trained_model(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    model, task = digits_problem

    def error(decomposer: str) -> float:
        result, _ = run(SVDDecompose(ratio=0.5, decomposer=decomposer), model, task)
        return float((predict(result, task.val)[0] - predict(model, task.val)[0]).square().mean())

    plain = error("svd")
    assert error("whitened") < 0.8 * plain
    assert 0.8 * plain < error("randomized") < 1.25 * plain


# --- training in decomposed form ------------------------------------------------------------------


def test_training_steepens_spectra_and_keeps_factors_orthogonal(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    """Each penalty, against training without it, does to the model what it is there for."""
    model, task = digits_problem

    def train(**weights: float) -> tuple[nn.Module, dict[str, float]]:
        stage = SVDDecompose(rule="energy", energy=0.9, epochs=4, lr=0.05, **weights)
        result, trace = run(stage, model, task)
        assert not any(isinstance(m, TrainableFactors) for m in result.modules())
        assert not result._forward_pre_hooks
        return result, trace.details["training"]

    plain, without = train(orthogonality=0.0, hoyer=0.0)
    thin, sparse = train(orthogonality=0.0, hoyer=20.0)
    _, straight = train(orthogonality=30.0, hoyer=0.0)
    assert sparse["hoyer"] < 0.95 * without["hoyer"]
    assert count_parameters(thin) < count_parameters(plain)
    assert straight["orthogonality"] < 0.7 * without["orthogonality"]


@pytest.mark.parametrize("rule", ["ratio", "energy", "quantile", "budget"])
def test_the_score_in_training_is_that_of_the_truncated_model(
    digits_problem: tuple[nn.Module, Task], rule: str
) -> None:
    """What is told of an epoch is what would ship: the truncated model's score, not that at full
    rank.
    """
    model, task = digits_problem
    stage = SVDDecompose(
        rule=rule, ratio=0.15, energy=0.6, quantile=0.8, budget=0.35, epochs=2, lr=0.003
    )
    result, trace = run(stage, model, task)
    told = trace.details["training"]["rounds"][-1]["score_after"]
    assert task.score(*predict(result, task.val)).mean == pytest.approx(told, abs=1e-3)
    # At full rank it would not have fallen.
    assert told < task.score(*predict(model, task.val)).mean


def test_truncation_every_few_epochs_trains_ever_thinner_factors(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    model, task = digits_problem
    widths: list[dict[str, int]] = []

    def watch(done: int, total: int, note: str) -> None:
        if done == 1:
            widths.append(
                {p: len(m.s) for p, m in live.named_modules() if isinstance(m, TrainableFactors)}
            )

    stage = SVDDecompose(ratio=0.3, epochs=5, truncate_every=2, lr=0.03)
    live = copy.deepcopy(model)
    context = Context(task=task, teacher=model, seed=0, progress=watch)
    result, trace = stage.apply(live, context)
    rounds = trace.details["training"]["rounds"]
    assert [r["epochs"] for r in rounds] == [2, 2, 1]
    full, thin, last = widths
    ranks = ranks_of(trace)
    # A ratio is of the full rank.
    assert {p: thin[p] for p in ranks} == ranks == {p: last[p] for p in ranks}
    assert all(full[p] > thin[p] for p in ranks)
    # What has trained as it ships is far better than what was cut at the end only.
    once, _ = run(dataclasses.replace(stage, truncate_every=0), model, task)
    assert (
        task.score(*predict(result, task.val)).mean
        > task.score(*predict(once, task.val)).mean + 0.2
    )


def test_truncation_keeps_the_largest_values() -> None:
    """And leaves alone what would not save."""
    torch.manual_seed(0)
    wide, thin = nn.Linear(20, 20), nn.Linear(20, 2)
    trained = {"wide": TrainableFactors(wide, "channel"), "thin": TrainableFactors(thin, "channel")}
    calls = {p: ((torch.Size((2, 20)), torch.Size((2, m.shape[0]))),) for p, m in trained.items()}
    _Truncation(trained, calls, 2, lambda parts: dict.fromkeys(parts, (2,))).apply()
    expected = svd(wide.weight.detach()).truncate(2)
    torch.testing.assert_close(
        trained["wide"].weight.detach(), expected.compose(), rtol=1e-4, atol=1e-5
    )
    assert [len(m.s) for m in trained.values()] == [2, 2]
    torch.testing.assert_close(
        trained["thin"].weight.detach(), thin.weight.detach(), rtol=1e-4, atol=1e-5
    )
    model = nn.Sequential(trained["wide"]).eval()
    _Truncation({"0": trained["wide"]}, {"0": calls["wide"]}, 2, lambda parts: {"0": (1,)}).preview(
        model, ()
    )
    torch.testing.assert_close(
        trained["wide"].preview, expected.truncate(1).compose(), rtol=1e-4, atol=1e-5
    )


def test_epochs_that_train_nothing_are_said_to() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e = nn.Embedding(60, 24)

        def forward(self, ids: Tensor) -> Tensor:
            return self.e(ids).mean(1)

    model, task = Bag().eval(), task_of(tokens, 24)
    _, trace = run(SVDDecompose(ratio=0.2, epochs=2), model, task)
    assert trace.touched == ("e",)
    assert "for 2 epochs: embeddings do not" in trace.details["not_trained"]
    assert "training" not in trace.details
    _, untrained = run(SVDDecompose(ratio=0.2), model, task)
    assert "not_trained" not in untrained.details


def test_training_is_reproducible(digits_problem: tuple[nn.Module, Task]) -> None:
    model, task = digits_problem
    stage = SVDDecompose(ratio=0.3, epochs=2, truncate_every=1)
    first, second = (run(stage, model, task)[0] for _ in range(2))
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
