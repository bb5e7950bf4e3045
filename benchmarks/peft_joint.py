"""Adapters and compression in one search, beside one after the other in both orders, at equal time.

    python benchmarks/peft_joint.py --task mrpc --time "60 min"

All begin with the pretrained MiniLM under a fresh head.

- *joint*: pipelines of `adapt`, cuts, low ranks and quantization, for all of the time
- *adapt, then compress*: the preset `autopeft` for half of the time; its best model, adapted, is
  compressed by all of petra for the other half
- *compress, then adapt*: for half of the time a compression is searched that keeps what the
  pretrained model computes (its targets are its own outputs, under a head of many); its knee is
  adapted for the other half

Quality is that of the test split, size and latency are over the pretrained model's; hypervolume is
that of quality, size and latency below the majority class, 1 and 1.1. Writes
``results/peft-joint.md``; studies in ``runs/peft-joint`` are continued where they were cut off.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from host import heading
from peft_problem import Setting
from torch import nn

import petra
from petra.core.pipeline import Pipeline
from petra.core.quantities import parse_duration
from petra.core.rng import derive_seed
from petra.core.trial import Trial
from petra.execute.apply import apply_pipeline
from petra.front import confirmed
from petra.methods.base import Context
from petra.moo.dominance import front_mask
from petra.moo.hypervolume import hypervolume
from petra.report.pipeline_text import pipeline_in_words
from petra.study import Study
from petra.tasks.base import Task
from petra.training.loop import predict
from petra.workloads.glue import glue
from petra.workloads.minilm import untrained

RESULTS = Path(__file__).parent / "results"
ADAPT = "adapt"
# What makes models smaller or faster; `distill` has no teacher before something is adapted.
COMPRESSION = (
    *("prune.structured", "prune.heads", "prune.depth", "lowrank.svd"),
    *("quantize.dynamic", "quantize.static", "quantize.weights"),
)
OUTPUTS = 32  # of the head under which a compression is to keep what the model computes
OBJECTIVES = ("quality", "latency", "size")


@dataclass(frozen=True)
class Point:
    """A model at the end of an arm."""

    arm: str
    pipeline: str
    quality: float
    size: float
    latency: float

    def costs(self) -> tuple[float, float, float]:
        return 1 - self.quality, self.size, self.latency


@dataclass(frozen=True)
class Bench:
    """What all arms share."""

    model: nn.Module
    task: Task
    setting: Setting
    seconds: float
    place: Path

    def study(
        self, name: str, share: float, model: nn.Module | None = None, **settings: Any
    ) -> Study:
        """A finished study of a share of the time."""
        print(f"--- {name}: {share * self.seconds:.0f} s", flush=True)
        given: dict[str, Any] = {"objectives": OBJECTIVES, "task": self.task} | settings
        return petra.compress(
            model or self.model,
            given.pop("task"),
            budget={"time": share * self.seconds, "stagnation": 0},
            workdir=self.place / name,
            **given,
        )

    def made(self, pipeline: Pipeline) -> nn.Module:
        """The pretrained model after a pipeline, as a study makes it."""

        def context(prefix: Pipeline) -> Context:
            return Context(task=self.task, teacher=self.model, seed=derive_seed(0, prefix.key))

        result, _ = apply_pipeline(
            self.model, pipeline, context, cache=None, on_stage=lambda i, spec: print(f"  {spec}")
        )
        return result.eval()


def points(arm: str, study: Study, size: float, latency: float) -> list[Point]:
    """Members of its front; `size` and `latency` are the study's untouched model's, over those of
    the pretrained one.
    """
    front = study.front
    base = front.baseline
    assert base is not None
    return [
        Point(
            arm,
            pipeline_in_words(t.pipeline),
            (t.test or t.metrics)["quality"].mean,
            size * t.metrics["size_bytes"].mean / base.metrics["size_bytes"].mean,
            latency * confirmed(t, "latency_ratio").mean,
        )
        for t in front.members
    ]


def ratios(study: Study, trial: Trial) -> tuple[float, float]:
    """Size and latency of a trial over the study's untouched model's."""
    base = study.front.baseline
    assert base is not None
    size = trial.metrics["size_bytes"].mean / base.metrics["size_bytes"].mean
    return size, confirmed(trial, "latency_ratio").mean


def joint(bench: Bench) -> list[Point]:
    stages: dict[str, Any] = {name: {} for name in COMPRESSION}
    stages[ADAPT] = bench.setting.training()
    usual = {"stage": ADAPT, "params": {"lora": 8, **bench.setting.training()}}
    initial = [[usual], [usual, "quantize.dynamic"], ["prune.structured", usual]]
    space = {"stages": stages, "max_length": 4, "initial": initial}
    study = bench.study("joint", 1.0, space=space)
    return points("joint", study, 1.0, 1.0)


def adaptation(bench: Bench, name: str, model: nn.Module | None) -> Study:
    """Half of the time for the published space."""
    space = {"preset": "autopeft", "stages": {ADAPT: bench.setting.training()}}
    return bench.study(name, 0.5, model, space=space, search={"name": "bayes", "initial": 8})


def adapt_then_compress(bench: Bench) -> list[Point]:
    first = adaptation(bench, "adapted", None)
    best = first.front.pick("best").trial
    model = bench.made(best.pipeline)
    second = bench.study("adapted-compressed", 0.5, model)
    return points("adapt, then compress", second, *ratios(first, best))


def compress_then_adapt(bench: Bench) -> list[Point]:
    wide = untrained(OUTPUTS)
    space = {"stages": [s for s in COMPRESSION if s != "quantize.static"]}
    first = bench.study("compressed", 0.5, wide, task=own_outputs(wide, bench.task), space=space)
    knee = first.front.pick("knee").trial
    model = bench.made(knee.pipeline)
    second = adaptation(bench, "compressed-adapted", model)
    return points("compress, then adapt", second, *ratios(first, knee))


def own_outputs(model: nn.Module, task: Task) -> Task:
    """To compute what the model does, on the same items: the error is relative to the spread."""
    found = []
    for _, split in task.splits():
        outputs, _ = predict(model, split)
        batches = [inputs for inputs, _ in split.batches(len(outputs))]
        found.append((batches[0], outputs))
    return petra.regression(*found, metric="rmse")


ARMS: dict[str, Callable[[Bench], list[Point]]] = {
    "joint": joint,
    "adapt, then compress": adapt_then_compress,
    "compress, then adapt": compress_then_adapt,
}


def volume(found: Sequence[Point], majority: float) -> float:
    """Hypervolume of error, size and latency."""
    costs = torch.tensor([p.costs() for p in found], dtype=torch.float64).numpy()
    return hypervolume(costs, [1 - majority, 1.0, 1.1]) if len(costs) else 0.0


def table(found: Sequence[Point], majority: float) -> list[str]:
    lines = ["| arm | models | hypervolume |", "|---|---|---|"]
    for arm in dict.fromkeys(p.arm for p in found):
        mine = [p for p in found if p.arm == arm]
        lines.append(f"| {arm} | {len(mine)} | {volume(mine, majority):.4f} |")
    lines += ["", "Not dominated by a model of any arm:", ""]
    lines += ["| arm | quality | size | latency | pipeline |", "|---|---|---|---|---|"]
    on = front_mask([p.costs() for p in found])
    kept = [p for p, yes in zip(found, on, strict=True) if yes]
    for p in sorted(kept, key=lambda p: p.size):
        cells = (p.arm, f"{100 * p.quality:.2f}", f"{p.size:.3f}", f"{p.latency:.3f}", p.pipeline)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="mrpc", choices=("sst2", "rte", "mrpc", "cb"))
    parser.add_argument("--time", default="60 min", help="of each arm")
    parser.add_argument("--items", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--place", type=Path, default=Path("runs/peft-joint"))
    given = parser.parse_args()
    setting = Setting(given.items, given.epochs)
    model, task = glue(**setting.args(given.task))
    bench = Bench(model, task, setting, parse_duration(given.time), given.place / given.task)
    found = [p for arm in ARMS.values() for p in arm(bench)]
    _, labels = predict(model, task.test)
    majority = float(torch.bincount(labels.long()).max()) / len(labels)
    command = f'python benchmarks/peft_joint.py --task {given.task} --time "{given.time}"'
    lines = heading(f"Adapters and compression: MiniLM-L6 on {given.task}", command)
    lines += [
        f"- {given.time} of each arm, {given.items:,} training items; quality on the test split in"
        f" percent (majority class: {100 * majority:.1f}), size and latency over the pretrained"
        " model's in ONNX Runtime",
        "",
        *table(found, majority),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peft-joint.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
