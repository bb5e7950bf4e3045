"""What happens to a candidate inside its worker process: stages, export, reference predictions.

Runs with torch, never measures speed. The measuring process takes over from the files left here.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from petra.core.errors import ExportError, PetraError
from petra.core.interface import Interface
from petra.core.notes import StepBegan, StepProgress
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.target import Target
from petra.core.trial import FULL, Fidelity, StageTrace
from petra.execute.account import trains_weights
from petra.execute.added import register_plugins
from petra.execute.apply import apply_pipeline
from petra.execute.built import REFERENCE, Built, BuiltFile
from petra.execute.cache import PrefixCache
from petra.execute.curves import CurveWatch
from petra.execute.file_metrics import counted
from petra.execute.kept_modules import KeptModules
from petra.execute.pristine import Pristine
from petra.execute.reference import save_reference
from petra.measure.operations import count_macs
from petra.methods.base import Context
from petra.methods.facts import facts_after, facts_of
from petra.methods.table import STAGES
from petra.model.imported.module import ImportedModel
from petra.model.surgery import count_parameters, weight_bytes
from petra.runtimes.onnx_given import check_reads, ship
from petra.runtimes.table import runtime_for
from petra.space.effects import FLOAT_WEIGHTS
from petra.tasks.base import Task
from petra.tasks.inputs import call

Note = Callable[[object], None]


@dataclass(frozen=True)
class BuildPayload:
    """Everything that candidates are built and judged with, sent once to where that is done.

    `data` has the splits as arrays, `cache` (None: no cache) takes at most `cache_bytes`. `plugins`
    are stages, runtimes and metrics registered at run time in the parent, by name; `stages` are the
    kinds that may be asked for; `metrics` are what is asked of candidates beyond what is always
    measured; `interface` is what the model takes and returns, None for items of one shape;
    `pristine` is what `prepare` adds.
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
    metrics: tuple[str, ...] = ()
    interface: Interface | None = None
    pristine: Pristine | None = None


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
    payload: BuildPayload,
    note: Note,
    pipeline: Pipeline,
    fidelity: Fidelity = FULL,
    watch: CurveWatch | None = None,
    kept: KeptModules | None = None,
) -> tuple[nn.Module, tuple[StageTrace, ...]]:
    """The model that `pipeline` makes of the payload's, on the CPU, and a trace of every stage.
    What stages put beside layers is in `kept` then.

    Notes are as in `build_candidate`. `payload` is what `prepare` made.
    """
    cache, kept = None, kept or KeptModules()
    if payload.cache and payload.cache_bytes:
        cache = PrefixCache(payload.cache, payload.cache_bytes)
        kept.entries = cache.entries

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
        fidelity=fidelity,
        cache=cache,
        on_stage=on_stage,
        after_stage=after_stage,
        watch=watch,
        kept=kept,
    )
    return model.to("cpu"), trace


def with_seed(payload: BuildPayload, seed: int | None) -> BuildPayload:
    """The payload for builds with another seed than the study's, which neither read nor fill its
    cache; with None, as it is.
    """
    return payload if seed is None else replace(payload, seed=seed, cache=None)


def build_candidate(
    payload: BuildPayload,
    note: Note,
    pipeline: Pipeline,
    exports: tuple[tuple[Target, Path], ...],
    fidelity: Fidelity = FULL,
) -> tuple[Built | PetraError, ...]:
    """Run the pipeline at `fidelity`, and export the model for each target into its place, with the
    PyTorch model's own predictions beside it.

    Notes are `StepBegan` for each stage and each export, and `StepProgress` during a stage. Where
    there are several targets, the error of one that the model cannot be exported for stands in
    place of its files.
    """
    started = time.perf_counter()
    kept = KeptModules()
    model, trace = compressed(payload, note, pipeline, fidelity, kept=kept)
    return export_candidate(payload, note, pipeline, exports, model, trace, kept, started=started)


def export_candidate(
    payload: BuildPayload,
    note: Note,
    pipeline: Pipeline,
    exports: tuple[tuple[Target, Path], ...],
    model: nn.Module,
    trace: tuple[StageTrace, ...],
    kept: KeptModules,
    *,
    started: float,
) -> tuple[Built | PetraError, ...]:
    """The second half of `build_candidate`, for the `model` that `compressed` made of the pipeline,
    its `trace` and what it `kept`; `started` is when that began, by `time.perf_counter`.
    """
    files: list[tuple[Path, ...] | PetraError] = []
    for target, place in exports:
        alone = len(exports) == 1
        note(StepBegan(len(pipeline), "export" if alone else f"export for {target.name}"))
        try:
            files.append(exported(model, payload, target, place, untouched=not trace))
        except PetraError as error:
            if alone:
                raise
            files.append(error)
    example = payload.task.example(2)
    first = exports[0][1] / REFERENCE
    save_reference(model, payload.data / "val", example, first)
    for _, place in exports[1:]:
        shutil.copyfile(first, place / REFERENCE)
    kept.write(exports[0][1])
    stored = weight_bytes(model) if trains_weights(trace) or not kept.files else kept.bytes
    common = Built(
        files=(),
        reference=BuiltFile.of(first),
        params=trace[-1].params_after if trace else count_parameters(payload.model),
        macs=count_macs(model, example),
        quantized=FLOAT_WEIGHTS not in facts_after(pipeline, facts_of(payload.model)),
        trace=trace,
        build_s=time.perf_counter() - started,
        train_s=sum(t.seconds for t in trace if not t.cached),
        stored_bytes=stored if pipeline.stages else 0,
    )
    return tuple(
        found if isinstance(found, PetraError) else common.shipping(found, counted(found))
        for found in files
    )


def exported(
    model: nn.Module,
    payload: BuildPayload,
    target: Target,
    place: Path,
    *,
    untouched: bool = False,
) -> tuple[Path, ...]:
    """The files that ship for `target`, as ``place/model.*``, the main one first. An `untouched`
    model that came as a file ships as that file.
    """
    runtime = runtime_for(target)
    place.mkdir(parents=True, exist_ok=True)
    main_file = place / f"model{runtime.suffix}"
    if untouched and isinstance(model, ImportedModel):
        check_reads(runtime)
        return tuple(ship(model, main_file))
    files = runtime.export(model, payload.task.example(2), main_file, payload.interface)
    if not files:
        raise ExportError(f"runtime {runtime.name} wrote no file")
    for file in files:
        if file.parent != place:
            raise ExportError(f"runtime {runtime.name} wrote {file}, which is not in {place}")
    return tuple(files)


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
