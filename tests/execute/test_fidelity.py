"""What runs at which fidelity, and what evaluations of different fidelity share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.trial import FULL, Fidelity, StageTrace
from petra.execute.apply import apply_pipeline
from petra.execute.cache import PrefixCache
from petra.execute.plan import steps_of
from petra.measure.operations import count_macs
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.description.state_hash import state_hash
from petra.model.outline import outline_of
from petra.model.surgery import count_parameters
from petra.tasks.base import Task
from petra.testing.stage_suite import small_problem

ZERO = Fidelity(zero_shot=True)
CUT = StageSpec("prune.structured", {"ratio": 0.4})
TUNE = StageSpec("tune", {"epochs": 1})
QAT = StageSpec("quantize.qat", {"epochs": 1, "samples": 64})
STATIC = StageSpec("quantize.static", {"samples": 64, "observer": "minmax"})
Ran = tuple[nn.Module, tuple[StageTrace, ...]]


def run(*stages: StageSpec, at: Fidelity = FULL, cache: PrefixCache | None = None) -> Ran:
    model, task = small_problem()
    return apply_pipeline(
        model,
        Pipeline(stages),
        lambda prefix: Context(task=task, teacher=model, seed=derive_seed(0, prefix.key)),
        fidelity=at,
        cache=cache,
        on_stage=lambda index, spec: None,
    )


def costs(model: nn.Module, task: Task) -> tuple[int, int]:
    return count_parameters(model), count_macs(model, task.example(2))


@pytest.mark.parametrize(
    "stages",
    [
        (StageSpec("lowrank.svd", {"rule": "ratio", "ratio": 0.2, "epochs": 1}),),
        (StageSpec("prune.structured", {"ratio": 0.5, "schedule": "iterative", "steps": 2}),),
        (CUT, TUNE, QAT),
        (StageSpec("prune.depth"), StageSpec("distill", {"epochs": 1}), STATIC),
    ],
    ids=lambda stages: "+".join(s.kind for s in stages),
)
def test_training_left_out_leaves_structure(stages: tuple[StageSpec, ...]) -> None:
    _, task = small_problem()
    (full, _), (bare, traces) = run(*stages), run(*stages, at=ZERO)
    assert costs(full, task) == costs(bare, task)
    ran = [s.kind for s in stages if s.kind not in ("tune", "distill")]
    assert [t.stage for t in traces] == ran


def test_a_pipeline_of_training_alone_is_the_untouched_model() -> None:
    bare, traces = run(TUNE, TUNE, at=ZERO)
    assert traces == ()
    assert state_hash(bare) == state_hash(run()[0])


def test_what_trains_nothing_is_shared_between_fidelities(tmp_path: Path) -> None:
    """In both directions; what training made is not."""
    cache = PrefixCache(tmp_path, 10**9)
    alone, _ = run(CUT, TUNE)
    _, (cut,) = run(CUT, TUNE, at=ZERO, cache=cache)
    assert not cut.cached
    full, traces = run(CUT, TUNE, cache=cache)
    assert [t.cached for t in traces] == [True, False]
    assert state_hash(full) == state_hash(alone)
    again, traces = run(CUT, TUNE, at=ZERO, cache=cache)
    assert [t.cached for t in traces] == [True]
    assert state_hash(again) == state_hash(run(CUT, TUNE, at=ZERO)[0])


def test_a_trained_prefix_is_not_taken_for_an_untrained_one(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, 10**9)
    svd = StageSpec("lowrank.svd", {"ratio": 0.2, "epochs": 1})
    full, bare = run(svd)[0], run(svd, at=ZERO)[0]
    for at, expected in ((FULL, full), (ZERO, bare), (FULL, full), (ZERO, bare)):
        assert state_hash(run(svd, at=at, cache=cache)[0]) == state_hash(expected)


def test_a_stage_that_trains_says_what_it_is_without() -> None:
    """Every stage of the table at its defaults: itself, less, or nothing; never training twice."""
    model, task = small_problem()
    outline = outline_of(model)
    for name in STAGES.names():
        stage = STAGES.get(name).from_spec(STAGES.get(name).card(outline).normalize({}), task)
        bare = stage.untrained()
        assert (bare == stage) == (not stage.training_epochs())
        if bare is not None:
            assert bare.untrained() == bare
            assert not bare.training_epochs()
            assert type(bare) is type(stage)


def test_steps_keep_their_place_in_the_pipeline() -> None:
    model, task = small_problem()
    steps = steps_of(Pipeline((TUNE, CUT, TUNE, QAT)), task, outline_of(model), ZERO)
    assert [(step.index, step.spec.kind) for step in steps] == [(1, CUT.kind), (3, QAT.kind)]
    assert steps[-1].ran == Pipeline((CUT, QAT.replace(epochs=0)))
    assert replace(steps[0], index=0).ran == Pipeline((CUT,))
