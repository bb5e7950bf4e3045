"""Measuring artifacts, in a fresh process without torch (unless the runtime is torch).

That it works at all is the proof that the file stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from petra.core.errors import ArtifactError
from petra.core.interface import Interface, judged_output
from petra.core.measurement import Measurement
from petra.core.target import Target
from petra.measure import protocol as timing
from petra.measure.feed import make_feed
from petra.measure.stored import Stored, load_split, save_arrays
from petra.runtimes.base import Arrays, LoadedModel
from petra.runtimes.table import runtime_for
from petra.workers.memory import peak_mb

_LONG, _MANY = ("latency_long_ms", "latency_long_ratio"), ("throughput", "throughput_ratio")


@dataclass(frozen=True)
class Request:
    """What to measure.

    `data` is a directory as in `petra.measure.stored`; `predictions` is the .npz file where the
    outputs go that are judged ("" to skip them); `baseline` is the artifact to be paired with (""
    to skip timing), on `baseline_target` (None for the same). Of the metrics that are measured on
    demand, those named in `metrics` are (None: all); what the latency is timed for is `race`.
    `coarse` is for a first idea, in a few rounds.
    """

    target: Target
    artifact: str
    data: str = ""
    baseline: str = ""
    baseline_target: Target | None = None
    predictions: str = ""
    confirm: bool = False
    metrics: tuple[str, ...] | None = None
    race: timing.Race = field(default_factory=timing.Race)
    coarse: bool = False
    host: str = ""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Names of the runtimes that it needs."""
        return self.target.runtime, (self.baseline_target or self.target).runtime

    def asks_for(self, *names: str) -> bool:
        """Whether any of these is to be measured."""
        return self.metrics is None or not set(self.metrics).isdisjoint(names)


def judged_of(outputs: Arrays, interface: Interface | None) -> Arrays:
    """The outputs that a task looks at. Raises ArtifactError when one is missing."""
    names = interface.judged if interface else (judged_output(tuple(outputs)),)
    try:
        return {name: outputs[name] for name in names}
    except KeyError as error:
        raise ArtifactError(
            f"the artifact returns {sorted(outputs)}, the model {error.args[0]!r}",
            hint="a runtime keeps the names of outputs",
        ) from None


def predict(session: LoadedModel, split: Stored) -> Arrays:
    """All predictions of a split, in its own order: (n, ...) for each output that is judged."""
    found: Arrays = {}
    for index, inputs in split.items.in_batches():
        for name, part in judged_of(session.run(inputs), split.interface).items():
            if name not in found:
                found[name] = np.empty((len(split.items), *part.shape[1:]), part.dtype)
            found[name][index] = part
    return found


def measure(request: Request) -> dict[str, dict[str, Any]]:
    """All about one artifact, on the inputs in `request.data`: its measurements as plain data.

    Speed is measured at the lengths that the split states: the typical one, and a long one.
    """
    split = load_split(Path(request.data))
    return _measure(request, [partial(split.items.at_length, n) for n in split.lengths], split)


def measure_file(request: Request, interface: Interface, given: str) -> dict[str, dict[str, Any]]:
    """The same for a file that comes alone: on random inputs, or on those in the .npz file
    `given`.
    """
    target = request.target
    items = max(target.batch, target.throughput_batch) if interface.free_batch else 1
    feed = make_feed(interface, items, given=given)
    return _measure(request, [lambda count: feed.take(0, count)], None)


def _measure(
    request: Request, calls: Sequence[Callable[[int], Arrays]], split: Stored | None
) -> dict[str, dict[str, Any]]:
    """Memory first, while the process holds nothing else, then predictions, then speed."""
    target = request.target
    runtime = runtime_for(target)
    calls = calls if request.asks_for(*_LONG) else calls[:1]
    warm = [call(target.batch) for call in calls]
    before = peak_mb()
    candidate = runtime.load(Path(request.artifact))
    for inputs in warm:
        candidate.run(inputs)
    found = {"memory_mb": Measurement(max(0.0, peak_mb() - before), 0.0, 1, "MB", request.host)}
    if request.predictions and split is not None:
        save_arrays(Path(request.predictions), predict(candidate, split))
    if request.baseline:
        baseline = runtime_for(request.baseline_target or target).load(Path(request.baseline))
        found |= _latency(request, baseline, candidate, warm)
        if request.asks_for(*_MANY):
            found |= _throughput(request, baseline, candidate, calls[0](target.throughput_batch))
    return {name: asdict(measurement) for name, measurement in found.items()}


def _paired(
    request: Request,
    baseline: LoadedModel,
    candidate: LoadedModel,
    inputs: Arrays,
    race: timing.Race,
) -> timing.Paired:
    how = timing.CONFIRM if request.confirm else timing.SEARCH
    how = timing.COARSE if request.coarse else how
    return timing.time_paired(
        lambda: baseline.run(inputs), lambda: candidate.run(inputs), how, race
    )


def _latency(
    request: Request, baseline: LoadedModel, candidate: LoadedModel, inputs: Sequence[Arrays]
) -> dict[str, Measurement]:
    """On each of the inputs, the typical ones first."""
    first = _paired(request, baseline, candidate, inputs[0], request.race)
    found = timing.latency_measurements(first, host=request.host)
    precise = timing.Race(spread=request.race.spread)
    for one in inputs[1:]:
        paired = _paired(request, baseline, candidate, one, precise)
        long = timing.latency_measurements(paired, host=request.host)
        for name in ("latency_ms", "latency_ratio"):
            found[name.replace("latency", "latency_long")] = long[name]
    return found


def _throughput(
    request: Request, baseline: LoadedModel, candidate: LoadedModel, inputs: Arrays
) -> dict[str, Measurement]:
    precise = timing.Race(spread=request.race.spread)
    paired = _paired(request, baseline, candidate, inputs, precise)
    batch = request.target.throughput_batch
    return timing.throughput_measurements(paired, batch, host=request.host)
