"""A finished study on disk in milliseconds: the toy problem searched by the real searcher, with
real ONNX files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from petra.config import StudyConfig, parse_config
from petra.core.measurement import Measurement
from petra.core.metric import describe
from petra.core.objective import Metrics, named_objectives
from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import Origin, Proposal, StageTrace, Trial
from petra.front import Front
from petra.measure.host import describe_host
from petra.search.base import Problem
from petra.search.durations import Durations
from petra.search.schedule import Stream, VirtualSchedule
from petra.search.table import make_searcher
from petra.store.layout import StudyPaths
from petra.store.store import Store
from petra.testing.toy import toy_space, toy_trial

HOST = "toyhost"
_AS_BUILT = frozenset(
    {
        *("size_bytes", "params", "macs", "train_s"),
        *("trainable_params", "trainable_share", "module_bytes", "train_memory_mb"),
        *("latency_unmerged_ms", "latency_unmerged_ratio"),
    }
)
"""Metrics that confirming a model does not measure again."""


def write_onnx(path: Path, *, hidden: int, seed: int = 0) -> Path:
    """A working two-layer perceptron from (batch, 8) to (batch, 3)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = generator(seed, "weights", hidden)
    w, v = (
        rng.normal(size=(8, hidden)).astype(np.float32),
        rng.normal(size=(hidden, 3)).astype(np.float32),
    )
    nodes = [
        helper.make_node("MatMul", ["input", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(v, "v")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def toy_study(
    directory: Path,
    *,
    trials: int = 40,
    objectives: Sequence[str] = ("quality", "latency", "size"),
    constraints: Sequence[str] = (),
    seed: int = 0,
    confirm: bool = True,
) -> Path:
    """Search the toy problem for `trials` trials and store them in `directory` as a study would.

    With `confirm`, the front and the untouched model have measurements on the test split too. Like
    real ones, trials have what is measured on demand only where the study is about it.
    """
    config = parse_config(
        {
            "workload": "digits",
            "objectives": tuple(objectives),
            "constraints": tuple(constraints),
            "budget": {"trials": max(trials, 1)},
            "seed": seed,
            "workdir": str(directory),
        }
    )
    goals, bounds = (
        named_objectives(config.objectives, maximize_quality=True),
        config.parsed_constraints(),
    )
    with Store.create(directory, config.model_dump(mode="json"), describe_host()) as store:
        store.set_note("task", {"metric": "accuracy", "maximize": True})
        store.set_note("eager_latency_ms", 3.21)
        baseline = _trial(directory, Proposal(0, Pipeline(), Origin(("baseline",))), None, ())
        found = [baseline]
        problem = Problem(toy_space(), goals, bounds, seed)
        searcher = make_searcher("evolution", {}, problem, baseline)
        stream = Stream(searcher, VirtualSchedule(config.virtual_workers, Durations(problem.space)))
        while len(found) <= trials and (proposal := stream.next()):
            store.propose(proposal)
            trial = _asked(_trial(directory, proposal, baseline, constraints), config)
            found.append(replace(trial, finished_at=1.5 * proposal.number))
            stream.put(found[-1])
        for trial in found:
            store.add(trial)
        if confirm:
            front = Front.of(found, goals, bounds)
            for trial in {t.number: t for t in (baseline, *front.members)}.values():
                store.set_test(trial.number, _confirmed(trial))
        store.set_note("stop_reason", f"the budget of {trials} trials is spent")
    return directory


def _trial(
    directory: Path, proposal: Proposal, baseline: Trial | None, constraints: Sequence[str]
) -> Trial:
    from petra.core.objective import Constraint, violation
    from petra.core.trial import TrialStatus

    trial = toy_trial(proposal)
    if not trial.measured:
        return replace(trial, seconds=0.7)
    share = trial.metrics["size_bytes"].mean / 1.02e6
    paths = StudyPaths(directory)
    artifact = paths.artifact(proposal.number) / "model.onnx"
    path = write_onnx(artifact, hidden=max(4, int(1200 * share)), seed=proposal.number)
    metrics = _all_metrics(trial.metrics, path.stat().st_size)
    bounds = [Constraint.parse(text) for text in constraints]
    feasible = baseline is None or violation(bounds, metrics, baseline.metrics) == 0
    return replace(
        trial,
        status=TrialStatus.COMPLETE if feasible else TrialStatus.INFEASIBLE,
        metrics=metrics,
        artifact=paths.relative(artifact),
        parity={"max_abs_error": 1e-5, "relative_error": 2e-6, "metric_difference": 0.0},
        trace=tuple(
            StageTrace(s.kind, ("a", "b"), {"c": "too thin"}, 1000, 800, 0.5)
            for s in proposal.pipeline
        ),
        seconds=1.5,
    )


def _asked(trial: Trial, config: StudyConfig) -> Trial:
    """Without what nothing in the study asks for."""
    named = config.metrics_named()
    kept = {n: m for n, m in trial.metrics.items() if not describe(n).on_demand or n in named}
    return replace(trial, metrics=kept)


def _all_metrics(toy: Metrics, size: int) -> dict[str, Measurement]:
    """What a real trial has, derived from the three numbers of a toy trial."""
    quality, ratio = toy["quality"], toy["latency_ratio"]
    params = float(size // 4)
    return {
        "quality": Measurement(quality.mean, 0.008, 1000, "accuracy", HOST),
        "latency_ratio": Measurement(ratio.mean, ratio.stderr, 20, "x", HOST),
        "latency_ms": Measurement(0.42 * ratio.mean, 0.002, 400, "ms", HOST),
        "latency_p95_ms": Measurement(0.5 * ratio.mean, 0.0, 400, "ms", HOST),
        "throughput": Measurement(20_000 / ratio.mean, 100.0, 400, "items/s", HOST),
        "throughput_ratio": Measurement(1 / ratio.mean, 0.01, 20, "x", HOST),
        "size_bytes": Measurement(float(size), 0.0, 1, "B", HOST),
        "params": Measurement(params, 0.0, 1, "", HOST),
        "macs": Measurement(params, 0.0, 1, "", HOST),
        "memory_mb": Measurement(10 + size / 1e5, 0.0, 1, "MB", HOST),
        "train_s": Measurement(1.2, 0.0, 1, "s", HOST),
        "trainable_params": Measurement(params // 100, 0.0, 1, "", HOST),
        "trainable_share": Measurement(0.01, 0.0, 1, "", HOST),
        "module_bytes": Measurement(float(size // 100), 0.0, 1, "B", HOST),
        "train_memory_mb": Measurement(300.0, 0.0, 1, "MB", HOST),
        "latency_unmerged_ms": Measurement(0.43 * ratio.mean, 0.002, 400, "ms", HOST),
        "latency_unmerged_ratio": Measurement(1.1 * ratio.mean, ratio.stderr, 20, "x", HOST),
    }


def _confirmed(trial: Trial) -> dict[str, Measurement]:
    """The same trial on another split: quality a little off, speed measured again."""
    rng = generator(0, "test split", trial.number)
    everything = _all_metrics(trial.metrics, int(trial.metrics["size_bytes"].mean))
    again = {name: m for name, m in everything.items() if name not in _AS_BUILT}
    quality = again["quality"]
    again["quality"] = replace(quality, mean=quality.mean + 0.005 * float(rng.normal()))
    again["latency_ratio"] = replace(
        again["latency_ratio"], stderr=again["latency_ratio"].stderr / 2
    )
    return again
