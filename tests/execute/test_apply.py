"""Stages run in one place, and what comes out does not depend on where the work began."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from petra.core.errors import ConfigError, StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.trial import StageTrace
from petra.execute.apply import apply_pipeline
from petra.execute.cache import PrefixCache
from petra.methods.base import Context, Stage, parameter
from petra.methods.table import STAGES
from petra.model.description.state_hash import state_hash
from petra.space.domains import Choice
from petra.space.effects import Effects
from petra.tasks.base import Task
from petra.workloads.digits import DigitsNet, digits_task

Problem = tuple[nn.Module, Task]
MakeContext = Callable[[Pipeline], Context]


def contexts(problem: Problem, seed: int = 0) -> MakeContext:
    model, task = problem
    return lambda prefix: Context(
        task=task, teacher=model, seed=derive_seed(seed, "stage", prefix.key)
    )


def run(
    problem: Problem, *stages: StageSpec, cache: PrefixCache | None = None, seed: int = 0
) -> tuple[nn.Module, tuple[StageTrace, ...], list[str]]:
    ran: list[str] = []
    model, traces = apply_pipeline(
        problem[0],
        Pipeline(stages),
        contexts(problem, seed),
        cache=cache,
        on_stage=lambda i, s: ran.append(f"{i} {s.kind}"),
    )
    return model, traces, ran


@dataclass(frozen=True)
class Odd(Stage):
    """Does one of several things that stages should not, or need not, do."""

    name: ClassVar[str] = "test.odd"
    effects: ClassVar[Effects] = Effects.of()
    how: str = parameter(
        "dropout",
        Choice(
            ("dropout", "nothing", "copy", "mode", "rewrite", "details", "bad details", "gradients")
        ),
        "what",
    )

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        details: Mapping[str, object] = {}
        weight = next(model.parameters())
        with torch.no_grad():
            match self.how:
                case "dropout":  # a draw from the global generator
                    weight.copy_(nn.functional.dropout(weight, 0.5))
                case "copy":
                    model = copy.deepcopy(model)
                case "mode":
                    model.train(not model.training)
                case "rewrite":
                    weight.copy_(weight.clone())
                case "details":
                    weight.mul_(2)
                    details = {
                        "ranks": (1, 2),
                        "worst": math.inf,
                        "loss": math.nan,
                        "by": {3: {"a"}},
                    }
                case "bad details":
                    weight.mul_(2)
                    details = {"model": model}
                case "gradients":
                    weight.mul_(2)
                    weight.grad = torch.ones_like(weight)
        return model, StageTrace("forgot", touched=("stem",), details=details)


@pytest.fixture(autouse=True)
def _odd_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES._table, "test.odd", Odd)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Real data, random weights: what is asked here is where results come from, not whether they
    are good.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return DigitsNet(width=8), digits_task()


TUNE = StageSpec("tune", {"epochs": 1})
PRUNE = StageSpec("prune.structured", {"ratio": 0.3})
LOWRANK = StageSpec("lowrank.svd", {"rule": "ratio", "ratio": 0.4})
DISTILL = StageSpec("distill", {"epochs": 1})
DROPOUT = StageSpec("test.odd", {"how": "dropout"})


@pytest.mark.parametrize(
    "stages",
    [(TUNE, PRUNE, DISTILL), (PRUNE, LOWRANK, TUNE), (LOWRANK, DROPOUT, TUNE)],
    ids=lambda s: s[0].kind,
)
def test_results_are_equal_with_and_without_a_cache(
    problem: Problem, stages: tuple[StageSpec, ...], tmp_path: Path
) -> None:
    before = state_hash(problem[0])
    plain, plain_traces, ran = run(problem, *stages)
    assert ran == [f"{i} {s.kind}" for i, s in enumerate(stages)]
    cache = PrefixCache(tmp_path, 10**9)
    filling, filling_traces, ran = run(problem, *stages, cache=cache)
    assert len(ran) == 3
    resumed = {}
    for kept in range(3):  # begin after each prefix in turn
        cache_of_prefix = PrefixCache(tmp_path / str(kept), 10**9)
        run(problem, *stages[:kept], cache=cache_of_prefix)
        torch.manual_seed(kept)  # whatever was drawn before must not matter
        resumed[kept], traces, ran = run(problem, *stages, cache=cache_of_prefix)
        assert len(ran) == 3 - kept
        assert [t.cached for t in traces] == [i < kept for i in range(3)]
    whole, traces, ran = run(problem, *stages, cache=cache)
    assert ran == []
    assert traces == tuple(replace(t, cached=True) for t in filling_traces), (
        "seconds are those of the run that was made"
    )
    assert {state_hash(m) for m in (plain, filling, *resumed.values(), whole)} == {
        state_hash(plain)
    }
    x = problem[1].example(16)
    assert torch.equal(plain.eval()(x), whole.eval()(x))
    for ours, theirs in zip(plain_traces, filling_traces, strict=True):
        assert {**ours.details, "seconds": 0} == {**theirs.details, "seconds": 0}
    assert state_hash(problem[0]) == before, "the original is not touched"


def test_another_seed_is_another_result(problem: Problem, tmp_path: Path) -> None:
    assert state_hash(run(problem, DROPOUT)[0]) == state_hash(run(problem, DROPOUT)[0])
    assert state_hash(run(problem, DROPOUT)[0]) != state_hash(run(problem, DROPOUT, seed=1)[0])
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run(problem, DROPOUT)
    assert torch.equal(torch.rand(1), expected), "the caller's generator is put back"


def test_traces_are_completed(problem: Problem) -> None:
    _, (prune, tune), _ = run(problem, PRUNE, TUNE)
    assert (prune.stage, tune.stage) == ("prune.structured", "tune")
    assert prune.params_before == sum(p.numel() for p in problem[0].parameters())
    assert prune.params_after == tune.params_before == tune.params_after < prune.params_before
    assert all(t.seconds > 0 and t.peak_memory_mb > 50 and not t.cached for t in (prune, tune))
    assert prune.touched


def test_an_empty_pipeline_is_a_copy(problem: Problem) -> None:
    model, traces, ran = run(problem)
    assert (traces, ran) == ((), [])
    assert model is not problem[0]
    assert state_hash(model) == state_hash(problem[0])


@pytest.mark.parametrize("how", ["nothing", "copy", "mode", "rewrite"])
def test_a_stage_that_changes_nothing_is_refused(
    problem: Problem, how: str, tmp_path: Path
) -> None:
    cache = PrefixCache(tmp_path, 10**9)
    with pytest.raises(StageRefused, match=r"test.odd left the model unchanged"):
        run(problem, TUNE, StageSpec("test.odd", {"how": how}), cache=cache)
    found = cache.longest(Pipeline((TUNE, StageSpec("test.odd", {"how": how}))), problem[0])
    assert found
    assert found[0] == 1, "what was done before is kept"


def test_details_are_plain_data(problem: Problem) -> None:
    _, (trace,), _ = run(problem, StageSpec("test.odd", {"how": "details"}))
    assert trace.stage == "test.odd"
    assert trace.details == {"ranks": [1, 2], "worst": "inf", "loss": "nan", "by": {"3": ["a"]}}
    json.dumps(trace.details, allow_nan=False)
    with pytest.raises(TypeError, match=r"test.odd: trace detail 'model' holds a DigitsNet"):
        run(problem, StageSpec("test.odd", {"how": "bad details"}))


def test_gradients_do_not_leak_into_the_next_stage(problem: Problem) -> None:
    model, _, _ = run(problem, StageSpec("test.odd", {"how": "gradients"}))
    assert all(p.grad is None for p in model.parameters())


def test_unknown_stages_and_parameters(problem: Problem) -> None:
    with pytest.raises(ConfigError, match=r"unknown stage 'prune.structurd'") as caught:
        run(problem, StageSpec("prune.structurd"))
    assert "prune.structured" in caught.value.hint
    with pytest.raises(ConfigError, match=r"tune.epoch"):
        run(problem, StageSpec("tune", {"epoch": 1}))


def test_graphs_are_not_cached_but_what_led_to_them_is(problem: Problem, tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, 10**9)
    stages = (PRUNE, StageSpec("quantize.static"))
    first, _, _ = run(problem, *stages, cache=cache)
    second, traces, ran = run(problem, *stages, cache=cache)
    assert ran == ["1 quantize.static"]
    assert [t.cached for t in traces] == [True, False]
    x = problem[1].example(16)
    assert torch.equal(first(x), second(x))
