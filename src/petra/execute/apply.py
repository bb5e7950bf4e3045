"""Running a pipeline on a model. The only place where stages run."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from petra.core.errors import StageRefused, StoreError
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.trial import FULL, Fidelity, StageTrace
from petra.execute.cache import PrefixCache
from petra.execute.curves import CurveWatch
from petra.execute.kept_modules import KeptModules
from petra.execute.plan import Step, steps_of
from petra.execute.remembered import forget_what_is_made_again
from petra.execute.states import KeptStates
from petra.methods.base import Context, Stage
from petra.model.attention.separate import unfuse
from petra.model.copies.copying import copy_model
from petra.model.description.state_hash import state_hash
from petra.model.outline import outline_of
from petra.model.surgery import count_parameters
from petra.model.trainability import unfreeze
from petra.store.traces import write_traces
from petra.tasks.share import share_of
from petra.training.effort import Effort
from petra.workers.memory import peak_mb, reset_peak

SHARE_SEED = 0  # of which items make a share of the training data


def apply_pipeline(
    model: nn.Module,
    pipeline: Pipeline,
    make_context: Callable[[Pipeline], Context],
    *,
    fidelity: Fidelity = FULL,
    cache: PrefixCache | None,
    on_stage: Callable[[int, StageSpec], None],
    after_stage: Callable[[StageSpec], None] = lambda spec: None,
    watch: CurveWatch | None = None,
    kept: KeptModules | None = None,
) -> tuple[nn.Module, tuple[StageTrace, ...]]:
    """The model that `pipeline` makes of a copy of `model`, and a trace of every stage that
    `fidelity` leaves in. `model` is not changed.

    `make_context(prefix)` gives the context of the prefix's last stage, a prefix of what runs; its
    seed must be a function of the prefix, so that a result does not depend on where the work began.
    `on_stage(index, spec)` is called before each stage that runs, `after_stage(spec)` before its
    result is kept; those found in the cache do not run, and their traces say so; a trace also says
    why its model could not be cached. `watch` judges the last training while it lasts; what is put
    beside layers is in `kept` then, whose entries are the cache's. With and without a cache,
    results are equal bit for bit. Raises what the stages and the functions raise, and StageRefused
    for a stage that changes nothing.
    """
    task = make_context(Pipeline()).task
    steps = steps_of(pipeline, task, outline_of(model), fidelity)
    done = 0
    traces: tuple[StageTrace, ...] = ()
    usable = kept.again if kept else lambda ran, trace: True
    found = cache.longest(steps[-1].ran, model, usable) if cache and steps else None
    if found:
        done, current, stored = found
        traces = tuple(replace(t, cached=True) for t in stored)
    else:
        current = copy_model(model)
        unfuse(current)
        unfreeze(current)  # what a person froze was for a training of their own
        if steps:
            forget_what_is_made_again(current, task.example(2))
    last = max((i for i, s in enumerate(steps) if s.stage.training_epochs()), default=-1)
    if watch and 0 <= last < done:
        watch.kept(traces[last])
    mark = state_hash(current)
    for step in steps[done:]:
        spec = step.spec
        on_stage(step.index, spec)
        states = KeptStates(cache.entries, step.course) if cache else None
        watching = watch if steps.index(step) == last else None
        context = _context(make_context(step.course), step, states, watching)
        if kept:
            context = replace(context, keep=partial(kept.keep, step.ran))
        current, trace = _run(step.stage, current, spec, context)
        after_stage(spec)
        before, mark = mark, state_hash(current)
        if mark == before:
            raise StageRefused(
                f"{spec.kind} left the model unchanged",
                hint=f"it does nothing to this model with {dict(spec.params)}",
            )
        traces = (*traces, trace)
        if cache and (reason := cache.put(step.ran, current, model, traces)):
            traces = (*traces[:-1], replace(trace, uncached=reason))
        if states and step.epochs is None:
            states.forget()
    return current, traces


def _context(
    context: Context, step: Step, states: KeptStates | None, watch: CurveWatch | None
) -> Context:
    """What the stage may use at its fidelity. The share of the data is the same for all candidates.
    Of a stage with several trainings, none is watched.
    """
    planned = step.stage.training_epochs()

    def watched(scores: Sequence[float], epochs: int) -> None:
        if watch and epochs == planned:
            watch(scores, epochs)

    effort = Effort(step.epochs, states if planned else None, watched)
    if step.data == 1:
        return replace(context, effort=effort)
    task = copy.copy(context.task)
    object.__setattr__(task, "train", share_of(task.train, step.data, seed=SHARE_SEED))
    return replace(context, task=task, effort=effort)


def _run(
    stage: Stage, model: nn.Module, spec: StageSpec, context: Context
) -> tuple[nn.Module, StageTrace]:
    """One stage, with everything around it that a stage should not have to think of."""
    params_before = count_parameters(model)
    reset_peak()
    started = time.perf_counter()
    with _seeded(context):
        returned: object = stage.apply(model, context)
    result, trace = _checked(returned, spec)
    seconds = time.perf_counter() - started
    for parameter in result.parameters():
        # A stored model has no gradients, so neither may one that goes straight on.
        parameter.grad = None
    kept = StageTrace(
        stage=spec.kind,
        touched=tuple(map(str, trace.touched)),
        skipped={str(layer): str(reason) for layer, reason in trace.skipped.items()},
        params_before=params_before,
        params_after=count_parameters(result),
        seconds=seconds,
        peak_memory_mb=peak_mb(),
        details={
            str(k): _plain(v, f"{spec.kind}: trace detail {k!r}") for k, v in trace.details.items()
        },
    )
    try:
        write_traces([kept], where=f"{spec.kind}: the trace")
    except StoreError as error:
        raise TypeError(error.message) from error
    return result, kept


def _checked(returned: object, spec: StageSpec) -> tuple[nn.Module, StageTrace]:
    """What `Stage.apply` returned, if it is what it must return."""
    if isinstance(returned, tuple) and len(returned) == 2:
        result, trace = returned
        if isinstance(result, nn.Module) and isinstance(trace, StageTrace):
            return result, trace
    raise TypeError(
        f"{spec.kind}.apply returned {type(returned).__name__}, not (model, StageTrace)"
    )


@contextmanager
def _seeded(context: Context) -> Iterator[None]:
    """Give the global generators a seed of this stage's own, and put them back afterwards.

    Stages draw from generators they derive from the context, but dropout knows only torch's global
    one, and people's augmentation whichever they were used to.
    """
    seed = derive_seed(context.seed, "global")
    before, numpy_before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([context.device] if context.device.startswith("cuda") else []):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)


def _plain(value: object, where: str) -> Any:
    """JSON data equal to what comes back from storing it; numbers that JSON has no word for become
    words.
    """
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):  # exactly these: of a subclass, only the value is kept
        if isinstance(value, kind):
            plain = kind(value)
            return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.ndim == 0):
        return _plain(value.item(), where)
    if isinstance(value, Mapping):
        return {str(k): _plain(v, where) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, where) for v in value]
    raise TypeError(f"{where} holds a {type(value).__name__}; only JSON data can be kept")
