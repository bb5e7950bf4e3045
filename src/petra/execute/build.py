"""What happens to a candidate inside its worker process: stages, export, reference predictions.

Runs with torch, never measures speed. The measuring process takes over from the files left here.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from petra.core.errors import ExportError, ParityError
from petra.core.measurement import LARGEST, Measurement
from petra.core.metric import METRICS
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.registry import Registry
from petra.core.rng import derive_seed
from petra.core.text import shown
from petra.core.trial import StageTrace
from petra.execute.apply import apply_pipeline
from petra.execute.cache import PrefixCache
from petra.execute.pristine import Pristine
from petra.measure.bench_main import PREDICTION_BATCH
from petra.measure.operations import count_macs
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.surgery import count_parameters
from petra.runtimes.base import Runtime, Target
from petra.runtimes.table import RUNTIMES
from petra.runtimes.verify import has_fixed_infinities
from petra.space.effects import FLOAT_WEIGHTS
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, call, named, prediction, unnamed

Note = Callable[[object], None]
PARITY_ITEMS = 2 * PREDICTION_BATCH


@dataclass(frozen=True)
class BuildPayload:
    """Everything a worker needs, sent once: live objects and where to put things.

    `plugins` are stages, runtimes and metrics registered at run time in the parent, by name;
    `stages` are the kinds that may be asked for; `pristine` is what `prepare` adds.
    """

    model: nn.Module
    task: Task
    target: Target
    seed: int
    directory: Path
    cache_bytes: int
    fingerprint: str
    device: str = "cpu"
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    pristine: Pristine | None = None


@dataclass(frozen=True)
class Built:
    """What the worker hands back: paths, structure and traces (no tensors)."""

    files: tuple[str, ...]
    size_bytes: int
    params: int
    macs: int
    quantized: bool
    trace: tuple[StageTrace, ...]
    build_s: float
    train_s: float
    counted: Mapping[str, Measurement] = field(default_factory=dict)


def register_plugins(plugins: Mapping[str, Mapping[str, Any]]) -> None:
    """Make the parent's run-time registrations known in this process."""
    registries: dict[str, Registry[Any]] = {
        "stages": STAGES,
        "runtimes": RUNTIMES,
        "metrics": METRICS,
    }
    for key, registry in registries.items():
        for name, item in plugins.get(key, {}).items():
            if name not in registry:
                registry.register(name, item)


def prepare(payload: BuildPayload) -> BuildPayload:
    """What every candidate would do first, done once before the worker forks: imports, a first
    export, checksums.

    Runs nothing of a person's own, and starts no threads.
    """
    register_plugins(payload.plugins)
    for kind in payload.stages:
        STAGES.get(kind)
    warm_up(
        payload.target.runtime
        if payload.target.runtime not in payload.plugins.get("runtimes", {})
        else ""
    )
    payload.model.eval()
    return replace(payload, pristine=Pristine.of(payload.model, payload.task))


def warm_up(runtime: str) -> None:
    """Export a model of one layer: exporters load and build tables of operators at their first
    use.
    """
    if not runtime:
        return
    with contextlib.suppress(ImportError):
        from tqdm import tqdm  # type: ignore[import-untyped]

        tqdm.monitor_interval = 0  # exporters show progress, for which tqdm would start a thread
    with (
        contextlib.suppress(Exception),
        TemporaryDirectory(prefix="petra-warm-") as place,
        torch.random.fork_rng([]),
    ):
        plugin = RUNTIMES.get(runtime)()
        plugin.export(
            nn.Linear(4, 4).eval(), torch.zeros(2, 4), Path(place) / f"model{plugin.suffix}"
        )


def compressed(
    payload: BuildPayload, note: Note, pipeline: Pipeline
) -> tuple[nn.Module, tuple[StageTrace, ...]]:
    """The model that `pipeline` makes of the payload's, on the CPU, and a trace of every stage.

    Notes are as in `build_candidate`. `payload` is what `prepare` made.
    """
    cache = None
    if payload.cache_bytes:
        cache = PrefixCache(payload.directory / "cache" / payload.fingerprint, payload.cache_bytes)

    def make_context(prefix: Pipeline) -> Context:
        return Context(
            task=payload.task,
            teacher=payload.model,
            seed=derive_seed(payload.seed, "stage", prefix.key),
            device=payload.device,
            progress=lambda done, total, text: note(("progress", int(done), int(total), str(text))),
        )

    def on_stage(index: int, stage: StageSpec) -> None:
        payload.model.eval()
        note(("stage", index, stage.kind))

    def after_stage(stage: StageSpec) -> None:
        if payload.pristine:
            payload.pristine.check(payload.model, payload.task, stage=stage.kind)

    model, trace = apply_pipeline(
        payload.model,
        pipeline,
        make_context,
        cache=cache,
        on_stage=on_stage,
        after_stage=after_stage,
    )
    return model.to("cpu"), trace


def build_candidate(
    payload: BuildPayload, note: Note, pipeline: Pipeline, artifact_dir: Path
) -> Built:
    """Run the pipeline, export to `artifact_dir`/model.*, and save the PyTorch model's own
    predictions beside it.

    Notes are ("stage", index, name) when a stage begins and ("progress", done, total, text) during
    it; index is one past the last stage for the export.
    """
    started = time.perf_counter()
    model, trace = compressed(payload, note, pipeline)
    note(("stage", len(pipeline), "export"))
    runtime: Runtime = RUNTIMES.get(payload.target.runtime)()
    example = payload.task.example(2)
    artifact_dir.mkdir(parents=True, exist_ok=True)
    files = runtime.export(model, example, artifact_dir / f"model{runtime.suffix}")
    if not files:
        raise ExportError(f"runtime {runtime.name} wrote no file")
    quantized = any(FLOAT_WEIGHTS in STAGES.get(stage.kind).effects.removes for stage in pipeline)
    save_reference(
        model, payload.directory / "data" / "val", example, artifact_dir / "reference.npy"
    )
    return Built(
        files=tuple(str(f) for f in files),
        size_bytes=sum(f.stat().st_size for f in files),
        params=trace[-1].params_after if trace else count_parameters(payload.model),
        macs=count_macs(model, example),
        quantized=quantized,
        trace=trace,
        build_s=time.perf_counter() - started,
        train_s=sum(t.seconds for t in trace if not t.cached),
        counted=counted(files),
    )


def counted(files: Sequence[Path]) -> dict[str, Measurement]:
    """Metrics of plugins that are counted from the files that ship. Raises ExportError for what is
    no number.
    """
    found = {}
    for name, metric in METRICS.items():
        if metric.count is None:
            continue
        value: object = metric.count(files)
        if not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise ExportError(
                f"the metric {name} is {shown(value)}", hint="its `count` returns a finite number"
            )
        found[name] = Measurement(float(value), unit=metric.unit)
    return found


@torch.no_grad()
def save_reference(
    model: nn.Module, data: Path, example: Inputs, path: Path, *, items: int = PARITY_ITEMS
) -> None:
    """Predictions of the PyTorch model on the first `items` validation items, for the parity check.

    In the batches in which the artifact predicts them: dynamically quantized layers have a range
    for each batch.
    """
    arrays = {
        p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in sorted(data.glob("*.npy"))
    }
    count = min(items, len(next(iter(arrays.values()))))
    parts = []
    for start in range(0, count, PREDICTION_BATCH):
        stop = min(start + PREDICTION_BATCH, count)
        tensors = {k: torch.from_numpy(np.array(v[start:stop])) for k, v in arrays.items()}
        parts.append(prediction(call(model, unnamed(tensors, like=example))).float().numpy())
    reference = np.concatenate(parts)
    if not has_fixed_infinities(reference):
        named = (*model.named_parameters(), *model.named_buffers())
        wrecked = next((name for name, t in named if not torch.isfinite(t).all()), None)
        raise ParityError(
            "the PyTorch model itself returns NaN or infinity on validation items",
            hint=(
                f"its weight {wrecked!r} is not finite"
                if wrecked
                else "its weights are finite: values overflow"
            ),
        )
    np.save(path, reference, allow_pickle=False)


@torch.no_grad()
def eager_latency_ms(payload: BuildPayload, note: Note, batch: int, threads: int) -> float:
    """Median milliseconds of the untouched model in eager PyTorch, for orientation beside the
    runtime's figures.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    model = payload.model.eval()
    example = payload.task.example(batch)
    inputs = unnamed(
        {
            k: t.repeat(-(-batch // len(t)), *[1] * (t.ndim - 1))[:batch]
            for k, t in named(example).items()
        },
        like=example,
    )
    times = []
    for _ in range(60):
        start = time.perf_counter()
        call(model, inputs)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return 1e3 * statistics.median(times[10:])
