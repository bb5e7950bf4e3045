"""What happens to a candidate inside its worker process: stages, export, reference predictions.

Runs with torch, never measures speed. The measuring process takes over from the files left here.
"""

from __future__ import annotations

import contextlib
import shutil
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

from petra.core.errors import ExportError, ParityError, PetraError
from petra.core.interface import Interface, judged_output
from petra.core.measurement import LARGEST, Measurement
from petra.core.metric import METRICS
from petra.core.notes import StepBegan, StepProgress
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.registry import Registry
from petra.core.rng import derive_seed
from petra.core.target import Target
from petra.core.text import shown
from petra.core.trial import StageTrace
from petra.execute.apply import apply_pipeline
from petra.execute.built import REFERENCE, Built, BuiltFile
from petra.execute.cache import PrefixCache
from petra.execute.pristine import Pristine
from petra.measure.operations import count_macs
from petra.measure.stored import PREDICTION_BATCH, load_split, save_arrays
from petra.methods.base import Context
from petra.methods.facts import facts_after, facts_of
from petra.methods.table import STAGES
from petra.model.surgery import count_parameters
from petra.runtimes.table import RUNTIMES, runtime_for
from petra.runtimes.verify import has_fixed_infinities
from petra.space.effects import FLOAT_WEIGHTS
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, call, named_outputs, unnamed

Note = Callable[[object], None]
PARITY_ITEMS = 2 * PREDICTION_BATCH


@dataclass(frozen=True)
class BuildPayload:
    """Everything that candidates are built and judged with, sent once to where that is done.

    `data` has the splits as arrays, `cache` (None: no cache) takes at most `cache_bytes`. `plugins`
    are stages, runtimes and metrics registered at run time in the parent, by name; `stages` are the
    kinds that may be asked for; `interface` is what the model takes and returns, None for items of
    one shape; `pristine` is what `prepare` adds.
    """

    model: nn.Module
    task: Task
    target: Target
    seed: int
    data: Path
    cache: Path | None = None
    cache_bytes: int = 0
    device: str = "cpu"
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    interface: Interface | None = None
    pristine: Pristine | None = None


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
    if payload.target.runtime not in payload.plugins.get("runtimes", {}):
        warm_up(payload.target)
    payload.model.eval()
    return replace(payload, pristine=Pristine.of(payload.model, payload.task))


def warm_up(target: Target) -> None:
    """Export a model of one layer: exporters load and build tables of operators at their first
    use.
    """
    with contextlib.suppress(ImportError):
        from tqdm import tqdm  # type: ignore[import-untyped]

        tqdm.monitor_interval = 0  # exporters show progress, for which tqdm would start a thread
    with (
        contextlib.suppress(Exception),
        TemporaryDirectory(prefix="petra-warm-") as place,
        torch.random.fork_rng([]),
    ):
        runtime = runtime_for(target)
        runtime.export(
            nn.Linear(4, 4).eval(), torch.zeros(2, 4), Path(place) / f"model{runtime.suffix}"
        )


def context_of(payload: BuildPayload, note: Note, prefix: Pipeline) -> Context:
    """What the last stage of `prefix` may use besides the model."""
    return Context(
        task=payload.task,
        teacher=payload.model,
        seed=derive_seed(payload.seed, "stage", prefix.key),
        device=payload.device,
        target=payload.target,
        progress=lambda done, total, text: note(StepProgress(int(done), int(total), str(text))),
        interface=payload.interface,
    )


def compressed(
    payload: BuildPayload, note: Note, pipeline: Pipeline
) -> tuple[nn.Module, tuple[StageTrace, ...]]:
    """The model that `pipeline` makes of the payload's, on the CPU, and a trace of every stage.

    Notes are as in `build_candidate`. `payload` is what `prepare` made.
    """
    cache = None
    if payload.cache and payload.cache_bytes:
        cache = PrefixCache(payload.cache, payload.cache_bytes)

    def on_stage(index: int, stage: StageSpec) -> None:
        payload.model.eval()
        note(StepBegan(index, stage.kind))

    def after_stage(stage: StageSpec) -> None:
        if payload.pristine:
            payload.pristine.check(payload.model, payload.task, stage=stage.kind)

    model, trace = apply_pipeline(
        payload.model,
        pipeline,
        lambda prefix: context_of(payload, note, prefix),
        cache=cache,
        on_stage=on_stage,
        after_stage=after_stage,
    )
    return model.to("cpu"), trace


def build_candidate(
    payload: BuildPayload,
    note: Note,
    pipeline: Pipeline,
    exports: tuple[tuple[Target, Path], ...],
    seed: int | None = None,
) -> tuple[Built | PetraError, ...]:
    """Run the pipeline, and export the model for each target into its place, with the PyTorch
    model's own predictions beside it.

    Notes are `StepBegan` for each stage and each export, and `StepProgress` during a stage. Where
    there are several targets, the error of one that the model cannot be exported for stands in
    place of its files. Another `seed` than the study's neither reads nor fills its cache.
    """
    started = time.perf_counter()
    if seed is not None:
        payload = replace(payload, seed=seed, cache=None)
    model, trace = compressed(payload, note, pipeline)
    files: list[tuple[Path, ...] | PetraError] = []
    for target, place in exports:
        alone = len(exports) == 1
        note(StepBegan(len(pipeline), "export" if alone else f"export for {target.name}"))
        try:
            files.append(_export(model, payload, target, place))
        except PetraError as error:
            if alone:
                raise
            files.append(error)
    example = payload.task.example(2)
    first = exports[0][1] / REFERENCE
    save_reference(model, payload.data / "val", example, first)
    for _, place in exports[1:]:
        shutil.copyfile(first, place / REFERENCE)
    common = Built(
        files=(),
        reference=BuiltFile.of(first),
        params=trace[-1].params_after if trace else count_parameters(payload.model),
        macs=count_macs(model, example),
        quantized=FLOAT_WEIGHTS not in facts_after(pipeline, facts_of(payload.model)),
        trace=trace,
        build_s=time.perf_counter() - started,
        train_s=sum(t.seconds for t in trace if not t.cached),
    )
    return tuple(
        found if isinstance(found, PetraError) else common.shipping(found, counted(found))
        for found in files
    )


def _export(
    model: nn.Module, payload: BuildPayload, target: Target, place: Path
) -> tuple[Path, ...]:
    """The files that ship for `target`, as ``place/model.*``, the main one first."""
    runtime = runtime_for(target)
    place.mkdir(parents=True, exist_ok=True)
    main_file = place / f"model{runtime.suffix}"
    files = runtime.export(model, payload.task.example(2), main_file, payload.interface)
    if not files:
        raise ExportError(f"runtime {runtime.name} wrote no file")
    for file in files:
        if file.parent != place:
            raise ExportError(f"runtime {runtime.name} wrote {file}, which is not in {place}")
    return tuple(files)


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
    split = load_split(data)
    count = min(items, len(split.items))
    found: dict[str, np.ndarray] = {}
    for index, arrays in split.items.in_batches(items):
        inputs = unnamed({k: torch.from_numpy(v) for k, v in arrays.items()}, like=example)
        outputs = named_outputs(call(model, inputs))
        names = split.interface.judged if split.interface else (judged_output(tuple(outputs)),)
        for name in names:
            part = outputs[name].float().numpy()
            found.setdefault(name, np.empty((count, *part.shape[1:]), part.dtype))[index] = part
    for reference in found.values():
        _check_reference(model, reference)
    save_arrays(path, found)


def _check_reference(model: nn.Module, reference: np.ndarray) -> None:
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


@torch.no_grad()
def eager_latency_ms(payload: BuildPayload, note: Note) -> float:
    """Median milliseconds of the untouched model in eager PyTorch, for orientation beside the
    runtime's figures.
    """
    before = torch.get_num_threads()
    batch = payload.target.batch
    torch.set_num_threads(payload.target.threads)
    model = payload.model.eval()
    example = payload.task.example(batch)
    times = []
    for _ in range(60):
        start = time.perf_counter()
        call(model, example)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return 1e3 * statistics.median(times[10:])
