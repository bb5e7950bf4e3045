"""Stages whose declaration depends on the model, which freeze all but their own modules: legal,
searchable, cached, trained and shipped like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapters
import numpy as np
import pytest
import torch
from adapters import Adapt, Adapted, Merge
from residual_blocks import Net, make_problem, run
from torch import nn
from typer.testing import CliRunner

import petra
from petra.cli.main import app
from petra.core.errors import ConfigError, StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import generator
from petra.core.trial import TrialStatus
from petra.execute.cache import PrefixCache
from petra.methods.facts import facts_of
from petra.methods.table import STAGES
from petra.model.description.state_hash import state_hash
from petra.model.outline import outline_of
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.space.moves import perturb
from petra.space.space import Space
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.testing.stage_suite import StageSuite

LORA = StageSpec("adapt.lora", {"epochs": 6, "lr": 0.05, "rank": 2, "batch_size": 64})
MERGE = StageSpec("adapt.merge")
DYNAMIC = StageSpec("quantize.dynamic")
TUNE = StageSpec("tune", {"epochs": 1, "lr": 0.001})


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    adapters.register()
    yield
    adapters.forget()


@pytest.fixture
def problem() -> tuple[nn.Module, Task]:
    return make_problem()


class TestAdapt(StageSuite):
    stage = Adapt
    fast = {"epochs": 1, "layers.blocks.1": False}
    size_within = 0.1  # what is not trained is all zeros, stored once

    @pytest.fixture
    def problem(self) -> tuple[nn.Module, Task]:
        return make_problem()


class TestMerge(StageSuite):
    stage = Merge
    before = (StageSpec("adapt.lora", {"epochs": 1}),)

    @pytest.fixture
    def problem(self) -> tuple[nn.Module, Task]:
        return make_problem()

    def test_it_refuses_a_model_it_cannot_treat(self) -> None:
        x, y = torch.randn(8, 4), torch.randint(0, 4, (8,))
        task = classification((x, y), (x, y), (x, y))
        with pytest.raises(StageRefused, match="no layer has a branch"):
            run((nn.Sequential(nn.Linear(4, 4)), task), MERGE)


def accuracy(model: nn.Module, task: Task) -> float:
    return task.score(*petra.training.loop.predict(model, task.val)).mean


# -- the declaration


def test_the_card_has_a_bit_per_block_and_the_names_of_layers() -> None:
    card = Adapt.card(outline_of(Net()))
    bits = [p.name for p in card.parameters if p.family == "layers.*"]
    assert bits == ["layers.blocks.0", "layers.blocks.1", "layers.blocks.2"]
    assert str(card.parameter("targets").domain) == "{all, down, head, stem, up}"
    assert [p.name for p in Adapt.card().parameters if p.is_family] == ["layers.*"]


def test_bits_are_drawn_perturbed_and_refused_like_any_parameter() -> None:
    space = Space({"adapt.lora": Adapt.card(outline_of(Net()))}, max_length=1)
    drawn = {tuple(space.sample(generator(i)).stages[0].params.items()) for i in range(40)}
    bits = {
        tuple(value for name, value in params if name.startswith("layers.")) for params in drawn
    }
    assert len(bits) == 8, "all of 2^3"
    start = space.normalize(Pipeline((StageSpec("adapt.lora"),)))
    moved = [perturb(start, space, generator(i)) for i in range(60)]
    assert any(m and m.stages[0].params["layers.blocks.2"] is False for m in moved)
    with pytest.raises(ConfigError, match=r"layers.blocks.7: adapt.lora has no such parameter"):
        space.normalize(Pipeline((StageSpec("adapt.lora", {"layers.blocks.7": True}),)))
    with pytest.raises(ConfigError, match="targets: got 'query'"):
        space.normalize(Pipeline((StageSpec("adapt.lora", {"targets": "query"}),)))


def test_the_bits_and_targets_say_which_layers_are_adapted(problem: Any) -> None:
    off = {"layers.blocks.0": False, "layers.blocks.2": False}
    _, (trace,) = run(problem, LORA.replace(**off, targets="up"))
    assert trace.touched == ("blocks.1.up",)
    with pytest.raises(StageRefused, match="none of the chosen parts"):
        run(problem, LORA.replace(**off, **{"layers.blocks.1": False}))


def test_order_is_decided_by_effects() -> None:
    space = Space({n: STAGES.get(n).card(outline_of(Net())) for n in STAGES.names()}, max_length=4)

    def objection(*kinds: str) -> str:
        return space.objection(Pipeline(tuple(map(StageSpec, kinds))))

    assert not objection("adapt.lora", "adapt.merge", "quantize.static")
    assert not objection("quantize.dynamic", "adapt.lora")
    assert "needs input gradients" in objection("quantize.static", "adapt.lora")
    assert "needs float weights" in objection("quantize.dynamic", "adapt.lora", "adapt.merge")
    assert "not on a model with adapters" in objection("adapt.lora", "tune", "adapt.lora")


# -- what is frozen stays so


@pytest.mark.parametrize("base", [(), (DYNAMIC,), (StageSpec("quantize.weights", {"bits": 4}),)])
def test_nothing_but_the_branches_is_trained(base: tuple[StageSpec, ...], problem: Any) -> None:
    task = problem[1]
    before, _ = run(problem, *base)
    result, traces = run(problem, *base, LORA)
    assert traces[-1].details["trained_parameters"] == 3 * 2 * 2 * (16 + 64)
    held = dict(result.named_parameters())
    for name, old in before.named_parameters():
        module, _, own = name.rpartition(".")
        adapted = isinstance(result.get_submodule(module), Adapted)
        assert torch.equal(held[f"{module}.base.{own}" if adapted else name], old), name
    assert accuracy(result, task) > accuracy(before, task) + 0.1, "and it learns"


def test_training_afterwards_trains_the_branches_alone(problem: Any) -> None:
    one, _ = run(problem, LORA)
    two, traces = run(problem, LORA, TUNE)
    changed = {
        name
        for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert changed
    assert all(name.endswith(("up.weight", "down.weight")) for name in changed)
    assert not any(".base." in name for name in changed)
    assert traces[-1].skipped["stem"] == "frozen by an earlier stage"


def test_merged_is_unmerged_and_trainable_again(problem: Any) -> None:
    model, task = problem
    kept, _ = run(problem, LORA)
    merged, _ = run(problem, LORA, MERGE)
    x: Any = task.example(64)
    with torch.no_grad():
        assert torch.allclose(kept(x), merged(x), atol=1e-5)
    assert str(merged) == str(model), "the same modules as before"
    assert all(p.requires_grad for p in merged.parameters())


# -- the cache


def test_its_modules_are_cached_where_it_is_registered(problem: Any, tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, 10**8)
    first, traces = run(problem, LORA, cache=cache)
    again, cached = run(problem, LORA, cache=cache)
    assert [t.uncached for t in traces] == [""]
    assert [t.cached for t in cached] == [True]
    assert state_hash(again) == state_hash(first)
    frozen = [n for n, p in first.named_parameters() if not p.requires_grad]
    assert [n for n, p in again.named_parameters() if not p.requires_grad] == frozen
    adapters.forget()
    try:
        assert cache.longest(Pipeline((LORA,)), problem[0]) is None, "no file makes a class known"
    finally:
        adapters.register()


def test_the_trace_says_what_was_not_cached(
    problem: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adapt, "modules", classmethod(lambda cls: ()))
    _, (lora, merge) = run(problem, LORA, MERGE, cache=PrefixCache(tmp_path, 10**8))
    assert "the class adapters:Adapted is neither" in lora.uncached
    assert merge.uncached == ""


# -- files


@pytest.mark.parametrize("stages", [(LORA, MERGE), (DYNAMIC, LORA)], ids=["merged", "on int8"])
def test_it_ships(stages: tuple[StageSpec, ...], problem: Any, tmp_path: Path) -> None:
    result, _ = run(problem, *stages)
    x: Any = problem[1].example(32)
    (path,) = OnnxRuntime().export(result, problem[1].example(2), tmp_path / "model.onnx")
    (got,) = OnnxRuntime().load(path).run({"input": x.numpy()}).values()
    with torch.no_grad():
        expected = result(x).numpy()
    assert np.sqrt(np.mean((got - expected) ** 2)) <= 1e-2 * np.std(expected)


def test_a_model_with_branches_is_as_after_the_stage(problem: Any) -> None:
    kept, _ = run(problem, LORA)
    assert adapters.ADAPTERS in facts_of(kept)
    assert adapters.ADAPTERS not in facts_of(problem[0])


@pytest.mark.slow
def test_a_study_measures_merged_kept_and_quantized(problem: Any, tmp_path: Path) -> None:
    """Through worker processes, which make the same card of the model: to files that are
    measured."""
    model, task = problem
    bits = {"layers.blocks.0": False}
    initial = [
        [LORA.replace(**bits).as_dict(), MERGE.as_dict()],
        [LORA.replace(**bits).as_dict()],
        [DYNAMIC.as_dict(), LORA.as_dict()],
    ]
    stages: dict[str, Any] = {
        "adapt.lora": {"layers.*": [True, False], "layers.blocks.0": False},
        "adapt.merge": {},
        "quantize.dynamic": {},
    }
    initial[2][1]["params"] |= bits  # type: ignore[operator]
    study = petra.compress(
        model,
        task,
        space={"stages": stages, "initial": initial},
        budget={"trials": 4},
        workdir=tmp_path / "study",
    )
    done = study.trials[1:4]
    assert [t.status for t in done] == [TrialStatus.COMPLETE] * 3
    sizes = [t.metrics["size_bytes"].mean for t in (study.trials[0], *done)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05), "merged: what it was"
    assert sizes[2] > sizes[1]
    assert done[1].trace[0].cached, "the prefix that it shares with the first"
    assert study.trials[4].pipeline.stages


def test_methods_lists_what_is_declared_for_a_study_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapters_study.py").write_text(
        "from residual_blocks import make_problem\n"
        "def model():\n    return make_problem()[0]\n"
        "def task():\n    return make_problem()[1]\n"
    )
    file = tmp_path / "study.yaml"
    file.write_text("model: adapters_study:model\ntask: adapters_study:task\nbudget: {trials: 1}\n")
    monkeypatch.syspath_prepend(tmp_path)

    def listed(*arguments: str) -> list[str]:
        done = CliRunner().invoke(app, ["methods", "adapt.lora", "--json", *arguments])
        assert done.exit_code == 0, done.output
        return [p["name"] for p in json.loads(done.output)["parameters"]]

    assert "layers.*" in listed()
    assert listed("--for", str(file))[-3:] == [f"layers.blocks.{i}" for i in range(3)]
