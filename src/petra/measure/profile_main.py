"""Profiling an artifact beside the untouched model's, in a fresh process. Nothing measured here
decides about a candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from petra.core.digest import sha256
from petra.core.profile import NotProfiled, Profile, Profiled
from petra.core.target import Target
from petra.measure import protocol as timing
from petra.measure.feed import make_feed
from petra.measure.interface import interface_of
from petra.measure.stored import load_split
from petra.runtimes.base import Arrays, LoadedModel, Runtime
from petra.runtimes.table import runtime_for

SECONDS, MOST_CALLS, LEAST_CALLS = 2.0, 400, 10
"""Of recording each file; calls are as many as fit, within these bounds."""


@dataclass(frozen=True)
class ProfileRequest:
    """What to profile: `artifact`, and beside it `baseline` ("": nothing), on `data`, a directory
    as in `petra.measure.stored`. Without one ("") on the items in the .npz file `inputs`, or random
    ones. `host` and `instruction_sets` are of this machine.
    """

    target: Target
    artifact: str
    baseline: str = ""
    data: str = ""
    inputs: str = ""
    host: str = ""
    instruction_sets: tuple[str, ...] = ()


def profile(request: ProfileRequest) -> Profiled:
    """Time both files in turns as they ship, then record what their operators take.

    The files are opened by their runtime before anything else looks at them. Raises ArtifactError
    when one does not load or run, and ConfigError for given inputs that do not fit.
    """
    target, runtime = request.target, runtime_for(request.target)
    mine = _Opened(runtime, Path(request.artifact))
    inputs = _inputs(request, runtime, mine)
    run = mine.caller(inputs)
    base = _Opened(runtime, Path(request.baseline)) if request.baseline else None
    other = base.caller(inputs) if base else run
    paired = timing.time_paired(other, run, timing.COARSE)
    measured = timing.latency_measurements(paired, host=request.host)
    own_ms = measured["latency_ms"].mean
    base_ms = _median_ms(paired.baseline_s) if base else None
    found: tuple[Profile | None, Profile | None] = (None, None)
    refused = ""
    try:
        found = (
            mine.profile(inputs, own_ms),
            base.profile(inputs, base_ms or own_ms) if base else None,
        )
    except NotProfiled as error:
        refused = f"{error.message}; {error.hint}" if error.hint else error.message
    return Profiled(
        runtime=target.name,
        version=runtime.version(),
        host=request.host,
        instruction_sets=request.instruction_sets,
        threads=target.threads,
        batch=target.batch,
        mine=found[0],
        base=found[1],
        mine_ms=own_ms,
        base_ms=base_ms,
        ratio=measured["latency_ratio"].mean if base else None,
        refused=refused,
        digest=sha256(mine.path),
        base_digest=sha256(base.path) if base else "",
    )


@dataclass(frozen=True)
class _Opened:
    """A file, and how it is run."""

    runtime: Runtime
    path: Path

    def load(self) -> LoadedModel:
        return self.runtime.load(self.path)

    def caller(self, inputs: Arrays) -> Callable[[], object]:
        session = self.load()
        session.run(inputs)
        return lambda: session.run(inputs)

    def profile(self, inputs: Arrays, call_ms: float) -> Profile:
        calls = round(1e3 * SECONDS / max(call_ms, 1e-3))
        calls = max(LEAST_CALLS, min(MOST_CALLS, calls))
        return self.runtime.profile(self.path, inputs, calls)


def _inputs(request: ProfileRequest, runtime: Runtime, mine: _Opened) -> Arrays:
    """One call's, of the study's typical length."""
    batch = request.target.batch
    if request.data:
        split = load_split(Path(request.data))
        return split.items.at_length(split.lengths[0], batch)
    interface = interface_of(*runtime.declared(mine.path, mine.load()))
    feed = make_feed(interface, batch if interface.free_batch else 1, given=request.inputs)
    return feed.take(0, batch)


def _median_ms(seconds: tuple[float, ...]) -> float:
    return timing.percentile(seconds, 50) * 1e3
