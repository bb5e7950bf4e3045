"""The configuration that a searcher is told about is the one that was evaluated, on the space of
adapters, whose parameters mean something only beside others.

Trained parameters are the oracle: they are counted by a formula of what the stage that runs is made
of, and again of what each searcher's model, as it sees the trial, says was tried.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import petra
from petra.config import parse_config
from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.methods.table import STAGES
from petra.model.outline import outline_of
from petra.problem import build_space
from petra.search.base import Problem
from petra.search.structure import structures
from petra.search.surrogate.quantities import NOTHING
from petra.search.table import make_searcher
from petra.space.domains import Domain
from petra.space.encoding import Encoding
from petra.space.outline import ModelOutline
from petra.space.space import Space
from petra.testing.architectures import ARCHITECTURES
from petra.testing.search_suite import Run, simulate

pytest.importorskip("transformers")
from petra.core.objective import Objective

WIDTH = 32
OBJECTIVES = (Objective("quality", True), Objective("trainable_params", False))
TRIALS = 24


@cache
def problem() -> tuple[Any, Any]:
    return ARCHITECTURES.get("bert")()


@cache
def outline() -> ModelOutline:
    return outline_of(problem()[0])


@cache
def space(preset: str) -> Space:
    """The published one or, without a preset, one of more kinds of parameters."""
    model, task = problem()
    fixed = {"lora_targets": "query_value", "ia3": False, "bitfit": False, "prompt": 0}
    settings: dict[str, Any] = {"preset": preset} if preset else {"stages": {"adapt": fixed}}
    config = parse_config({"budget": {"trials": 1}, "space": settings})
    return build_space(config, task, model)


@cache
def count(pipeline: Pipeline) -> int:
    """Parameters that the stages of a pipeline insert into a block of width 32, by formula, as the
    worker makes stages of what is stored.
    """
    _, task = problem()
    stored = Pipeline.from_list(pipeline.as_list())
    (spec,) = stored.stages
    stage: Any = STAGES.get(spec.kind).from_spec(spec, task, outline())
    blocks = sum(stage.layer.values())
    adapters = sum(2 * s * WIDTH + s + WIDTH for s in (stage.serial, stage.parallel) if s)
    lengths = 2 * WIDTH if stage.lora and stage.lora_kind == "dora" else 0
    low_rank = 4 * stage.lora * WIDTH + lengths
    return int(blocks * (adapters + 2 * stage.prefix * WIDTH + low_rank))


def evaluate(proposal: Proposal) -> Trial:
    """Quality falls with what is trained, so that both objectives say how much that was."""
    trained = count(proposal.pipeline)
    metrics = {
        "quality": Measurement(0.9 - trained / 1e6, 1e-6, 100),
        "trainable_params": Measurement(float(trained)),
    }
    return proposal.ended(TrialStatus.COMPLETE, metrics=metrics)


BASELINE = Trial(
    0,
    Pipeline(),
    TrialStatus.COMPLETE,
    metrics={"quality": Measurement(0.9, 1e-6, 100), "trainable_params": Measurement(0.0)},
)


def said(place: Space, features: Any) -> int:
    """Trained parameters of the configuration that a row of features stands for."""
    encoding, card = Encoding(place), place.cards["adapt"]
    start = encoding.names.index(next(n for n in encoding.names if n.startswith("adapt.")))
    if not features[encoding.kinds.index("adapt")]:
        return 0  # the untouched model
    return count(Pipeline((card.decode(features[start : start + card.width]),)))


def run(name: str, preset: str, **options: object) -> tuple[Any, Run]:
    place = Problem(space(preset), OBJECTIVES, seed=3)
    searcher = make_searcher(name, options, place, BASELINE)
    return searcher, simulate(searcher, evaluate, trials=TRIALS)


PRESETS = pytest.mark.parametrize("preset", ["autopeft", ""])


@PRESETS
def test_the_default_search(preset: str) -> None:
    searcher, _ = run("surrogate", preset, candidates=20, rounds=1)
    memory, names = searcher.memory, [o.metric for o in OBJECTIVES]
    rows = (memory.rows(range(len(memory)), 0).features + 1) / 2
    assert len(memory) > TRIALS / 2
    for i, row in enumerate(rows):
        seen = memory.values[i][names.index("trainable_params")]
        trained = said(space(preset), row)
        cost = searcher.scaling.cost(OBJECTIVES[1], float(trained)) or NOTHING
        assert seen[0] == pytest.approx(cost, rel=1e-12)
    assert len({said(space(preset), row) for row in rows}) > 8, "they differ"


@PRESETS
def test_bayesian_optimisation(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every model the scores are in the order of what the configurations would train."""
    pytest.importorskip("botorch")
    from petra.search.bayes import gaussian

    monkeypatch.setattr(gaussian, "ITERATIONS", 2)
    given, ordered = gaussian.Posterior.__init__, []

    def watched(self, hyperparameters, x, lesson):  # type: ignore[no-untyped-def]
        trained = np.array([said(space(preset), row) for row in x])
        for a, b in zip(*np.triu_indices(len(x), 1), strict=True):
            more = np.sign(trained[a] - trained[b])
            assert np.sign(round(float(lesson.scores[a] - lesson.scores[b]), 9)) == more
        ordered.append(len(set(trained.tolist())))
        given(self, hyperparameters, x, lesson)

    monkeypatch.setattr(gaussian.Posterior, "__init__", watched)
    options = {"initial": 16, "batch": 8, "restarts": 2, "evaluations": 40}
    _, found = run("bayes", preset, **options)
    assert sum(p.origin.moves == ("improvement",) for p in found.proposals) > 4
    assert max(ordered) > 8


@PRESETS
def test_optunas_samplers(preset: str) -> None:
    optuna = pytest.importorskip("optuna")
    searcher, found = run("optuna", preset)
    study = searcher._opened(0)
    done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(done) > TRIALS / 2
    for trial in done:

        def choose(name: str, domain: Domain, known: Any = trial.params) -> Any:
            return known[name] if name in known else domain.decode((0.5,) * domain.width)

        pipeline = searcher.choices.draw(choose, np.random.default_rng(0))
        assert count(pipeline) == trial.values[1]
        assert pipeline in [p.pipeline for p in found.proposals]


@PRESETS
@pytest.mark.parametrize("name", ["evolution", "uniform", "structure_first", "asha"])
def test_every_other_search(name: str, preset: str) -> None:
    """What it proposes is what is stored, whatever it was drawn as."""
    options = {"bits": 12, "proposals": "evolution"} if name == "structure_first" else {}
    _, found = run(name, preset, **options)
    place = space(preset)
    for proposal in found.proposals:
        stored = Pipeline.from_list(proposal.pipeline.as_list())
        assert place.normalize(stored) == proposal.pipeline
        assert count(stored) == count(proposal.pipeline)


def test_what_means_nothing_is_told_as_nothing() -> None:
    """A switched-off module has no kind and no scale, so two ways of drawing it are one."""
    place = space("")
    card = place.cards["adapt"]
    off = {"lora": 0, "serial": 0, "parallel": 6}
    one = card.normalize({**off, "lora_kind": "dora", "serial_at": "feed_forward"})
    other = card.normalize({**off, "lora_kind": "lora"})
    assert one == other
    assert "lora_kind" not in one.params
    encoding = Encoding(place)
    rows = [encoding.encode(Pipeline((s,))) for s in (one, card.normalize({**off, "lora": 6}))]
    names = [n for n in encoding.names if n.startswith("adapt.lora_kind")]
    at = [encoding.names.index(n) for n in names]
    assert (rows[0][at] == 0.5).all()
    assert sorted(rows[1][at]) == [0.0, 0.0, 1.0]


def test_the_published_space() -> None:
    """Three sizes and a bit for every block, nothing else; 5.5 million for BERT-base."""
    card = space("autopeft").cards["adapt"]
    drawn = [card.sample(np.random.default_rng(seed)).params for seed in range(200)]
    free = {name for params in drawn for name in params if len({p.get(name) for p in drawn}) > 1}
    bits = {p.name for p in card.parameters if p.family == "layer.*"}
    hanging = {"serial_at", "scaling", "activation", "dropout"}  # on what may not be there
    assert all(len({p.get(name) for p in drawn} - {None}) == 1 for name in hanging)
    assert free - hanging == {"serial", "parallel", "prefix", *bits}
    assert {params.get("scaling") for params in drawn} == {4.0, None}
    assert len(bits) == 2
    assert len(space("autopeft").cards) == 1
    assert 11**3 * 2**12 == 5_451_776


def test_a_configuration_in_which_nothing_is_on_is_not_drawn() -> None:
    """Also where there is no default to take its place."""
    modules = ("serial", "parallel", "prefix", "lora")
    for place in (space(""), space("autopeft"), structures(space("autopeft"))):
        for seed in range(200):
            (stage,) = place.sample(np.random.default_rng(seed)).stages
            assert any(stage.params[name] for name in modules)


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path) -> None:
    """A study with real workers: what each trial trained, as the worker counted it, is what the
    pipeline that is stored with it says.
    """
    model, task = problem()
    study = petra.compress(
        model,
        task,
        objectives=["quality", "trainable_params"],
        space={"preset": "autopeft", "stages": {"adapt": {"epochs": 1, "lr": 1e-2}}},
        search={"name": "evolution"},
        budget={"trials": 8, "stagnation": 0},
        workdir=tmp_path / "study",
    )
    complete = [t for t in study.trials if t.number and t.measured]
    assert complete, [str(t.failure) for t in study.trials]
    for trial in complete:
        assert trial.metrics["trainable_params"].mean == count(trial.pipeline)
