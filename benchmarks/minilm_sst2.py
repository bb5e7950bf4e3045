"""MiniLM-L6 on SST-2: dynamic int8, and static int8 with smoothing, against fp32 on two CPU
runtimes.

``python benchmarks/minilm_sst2.py`` fine-tunes once (8 minutes on a core with AVX-512 BF16; kept,
see `petra.workloads.minilm`) and writes ``results/minilm-sst2.md``: accuracy on the official
development set, bytes of the one file that serves both runtimes, and latency of one sentence of 64
tokens in turns with the fp32 file. ``--only`` picks rows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from host import heading
from torch import nn

from petra.core.pipeline import Pipeline
from petra.core.rng import derive_seed
from petra.core.target import Target
from petra.execute.apply import apply_pipeline
from petra.measure.bench_main import Request
from petra.measure.client import run_benches, write_split
from petra.measure.stored import load_arrays
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.table import RUNTIMES
from petra.tasks.base import Task
from petra.workloads.glue import glue

RESULTS = Path(__file__).parent / "results"
TARGETS = ("onnxruntime", "openvino")
LENGTH = 64
THROUGHPUT_BATCH = 8
SEED = 0

STATIC = {
    "equalize": "smooth",
    "alpha": 0.5,
    "embeddings": "int8",
    "observer": "minmax",
    "samples": 512,
}
DYNAMIC: dict[str, object] = {"stage": "quantize.dynamic", "params": {"embeddings": "int8"}}
SMOOTHED: dict[str, object] = {"stage": "quantize.static", "params": STATIC}
# Scales, biases and norms keep pure int8 just above a quarter of the bytes; slightly narrower MLPs
# make up for them.
NARROWER: list[dict[str, object]] = [
    {
        "stage": "prune.structured",
        "params": {"importance": "taylor", "normalisation": "none", "ratio": 0.08},
    },
    {"stage": "repair.reconstruct", "params": {"samples": 512}},
]
PIPELINES: Mapping[str, list[dict[str, object]]] = {
    "fp32": [],
    "dynamic int8": [DYNAMIC],
    "static int8, smoothed": [SMOOTHED],
    "static int8": [{"stage": "quantize.static", "params": STATIC | {"equalize": "none"}}],
    "static int8, smoothed, 2 layers float": [
        {"stage": "quantize.static", "params": STATIC | {"keep_float": 2}}
    ],
    "6 heads less, dynamic int8": [{"stage": "prune.heads", "params": {"ratio": 0.08}}, DYNAMIC],
    "MLPs 8% narrower, dynamic int8": [*NARROWER, DYNAMIC],
    "MLPs 8% narrower, static int8, smoothed": [*NARROWER, SMOOTHED],
}


def made(model: nn.Module, task: Task, stages: list[dict[str, object]]) -> nn.Module:
    """The model that a pipeline makes, as the engine makes it."""
    specs = (
        STAGES.get(s.kind).card().normalize(s.params, where=s.kind)
        for s in Pipeline.from_list(stages)
    )

    def context(prefix: Pipeline) -> Context:
        return Context(task=task, teacher=model, seed=derive_seed(SEED, prefix.key))

    result, traces = apply_pipeline(
        model,
        Pipeline(tuple(specs)),
        context,
        cache=None,
        on_stage=lambda i, spec: print(f"  {spec}", flush=True),
    )
    for trace in traces:
        print(
            f"  {trace.stage}: {trace.seconds:.0f} s, {len(trace.touched)} layers,"
            f" {len(trace.skipped)} skipped"
        )
    return result


def rows(runtime: str, files: Mapping[str, Path], task: Task, data: Path) -> Iterator[str]:
    """The table of one runtime; fp32 is the first file."""
    yield f"## {runtime} {RUNTIMES.get(runtime)().version()}"
    yield ""
    yield (
        "| model | bytes | of fp32 | accuracy | latency ratio (95%) | ms | throughput ratio at 8 |"
    )
    yield "|---|---|---|---|---|---|---|"
    targets = torch.from_numpy(write_split(task.test, data))
    fp32 = next(iter(files.values()))
    for label, path in files.items():
        request = Request(
            Target(runtime, throughput_batch=THROUGHPUT_BATCH),
            str(path),
            str(data),
            baseline=str(fp32),
            confirm=True,
            predictions=str(data.parent / "predictions.npz"),
        )
        found = run_benches(request)
        (logits,) = load_arrays(Path(request.predictions)).values()
        score = task.score(torch.from_numpy(logits), targets)
        ratio, size = found["latency_ratio"], path.stat().st_size
        yield (
            f"| {label} | {size:,} | {size / fp32.stat().st_size:.3f} | {100 * score.mean:.2f} ±"
            f" {100 * score.stderr:.2f} | {ratio.mean:.3f}"
            f" ({ratio.interval[0]:.3f}-{ratio.interval[1]:.3f}) | {found['latency_ms'].mean:.2f} |"
            f" {found['throughput_ratio'].mean:.2f} |"
        )
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning")
    parser.add_argument("--train-items", type=int, default=16384, help="sentences fine-tuned on")
    parser.add_argument("--only", nargs="*", choices=list(PIPELINES), help="rows besides fp32")
    parser.add_argument("--runtimes", nargs="*", choices=TARGETS, default=TARGETS)
    given = parser.parse_args()
    chosen = {k: v for k, v in PIPELINES.items() if given.only is None or k in given.only or not v}
    model, task = glue("sst2", length=LENGTH, train_items=given.train_items, epochs=given.epochs)
    lines = [
        *heading("MiniLM-L6 on SST-2", "python benchmarks/minilm_sst2.py"),
        f"- fine-tuned on {given.train_items:,} sentences, {given.epochs} epochs; {LENGTH} tokens",
        (
            "- batch 1, 1 thread, timed in turns with the fp32 file; accuracy on the 872 sentences"
            " of the development set"
        ),
        "",
    ]
    lines += [
        f"- {label}: `{Pipeline.from_list(stages)}`" for label, stages in chosen.items() if stages
    ] + [""]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        files = {}
        for number, (label, stages) in enumerate(chosen.items()):
            print(label, flush=True)
            result = made(model, task, stages)
            (files[label],) = OnnxRuntime().export(
                result, task.example(2), place / f"{number}.onnx"
            )
        for runtime in given.runtimes:
            for line in rows(runtime, files, task, place / "test"):
                lines.append(line)
                print(line, flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "minilm-sst2.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
