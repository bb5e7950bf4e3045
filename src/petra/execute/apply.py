"""Running a pipeline on a model. The only place where stages run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.trial import StageTrace
from petra.execute.cache import PrefixCache
from petra.execute.memory import peak_mb, reset_peak
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.copying import copy_model
from petra.model.fingerprint import fingerprint
from petra.model.surgery import count_parameters


def apply_pipeline(
    model: nn.Module,
    pipeline: Pipeline,
    make_context: Callable[[Pipeline], Context],
    *,
    cache: PrefixCache | None,
    on_stage: Callable[[int, StageSpec], None],
) -> tuple[nn.Module, tuple[StageTrace, ...]]:
    """The model that `pipeline` makes of a copy of `model`, and a trace of every stage. `model` is not changed.

    `make_context(prefix)` gives the context of the prefix's last stage; its seed must be a function of the prefix, so
    that a result does not depend on where the work began. `on_stage(index, spec)` is called before each stage that
    runs; those found in the cache do not run, and their traces say so. With and without a cache, results are equal bit
    for bit. Raises what the stages raise, and StageRefused for one that changes nothing.
    """
    done = 0
    traces: tuple[StageTrace, ...] = ()
    found = cache.longest(pipeline, model) if cache else None
    if found:
        done, current, stored = found
        traces = tuple(replace(t, cached=True) for t in stored)
    else:
        current = copy_model(model)
    mark = fingerprint(current)
    for index in range(done, len(pipeline)):
        prefix, spec = pipeline.prefix(index + 1), pipeline.stages[index]
        on_stage(index, spec)
        current, trace = _run(current, spec, make_context(prefix))
        before, mark = mark, fingerprint(current)
        if mark == before:
            raise StageRefused(
                f"{spec.kind} left the model unchanged", hint=f"it does nothing to this model with {dict(spec.params)}"
            )
        traces = (*traces, trace)
        if cache:
            cache.put(prefix, current, model, traces)
    return current, traces


def _run(model: nn.Module, spec: StageSpec, context: Context) -> tuple[nn.Module, StageTrace]:
    """One stage, with everything around it that a stage should not have to think of."""
    stage = STAGES.get(spec.kind).from_spec(spec)
    params_before = count_parameters(model)
    reset_peak()
    started = time.perf_counter()
    with _seeded(context):
        result, trace = stage.apply(model, context)
    seconds = time.perf_counter() - started
    for parameter in result.parameters():
        parameter.grad = None  # a stored model has no gradients, so neither may one that goes straight on
    return result, replace(
        trace,
        stage=spec.kind,
        params_before=params_before,
        params_after=count_parameters(result),
        seconds=seconds,
        peak_memory_mb=peak_mb(),
        cached=False,
        touched=tuple(trace.touched),
        skipped=dict(trace.skipped),
        details={str(k): _plain(v, f"{spec.kind}: trace detail {k!r}") for k, v in trace.details.items()},
    )


@contextmanager
def _seeded(context: Context) -> Iterator[None]:
    """Give torch's global generator a seed of this stage's own, and put it back afterwards.

    Stages draw from generators they derive from the context, but dropout knows only the global one.
    """
    with torch.random.fork_rng([context.device] if context.device.startswith("cuda") else []):
        torch.manual_seed(derive_seed(context.seed, "global"))
        yield


def _plain(value: object, where: str) -> Any:
    """JSON data equal to what comes back from storing it; numbers that JSON has no word for become words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v, where) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, where) for v in value]
    raise TypeError(f"{where} holds a {type(value).__name__}; only JSON data can be kept")
