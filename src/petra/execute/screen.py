"""Costs before training: what a candidate would cost is found first, and decides whether its
training is worth it.

Size, parameters and MACs do not depend on how weights are trained, latency hardly. So a candidate
is built without training, exported, and where its size leaves it a chance timed coarsely.

*Who is screened, and when* (`plan`): candidates whose training would take `LEAST_TRAINING_S` or
more, while there is something that costs can fail: a constraint on one, or a rival on the front.
Costs are asked for before any training, or as soon as no later training changes them: a stage that
reads its structure off the weights (`Stage.structure_from_weights`: channels ranked in the whole
model, ranks by a share of the spectrum, layers kept in float by their sensitivity) must have had
the training that comes before it. What has run by then is cached, and not done again.

*How sure costs are* (`exact_spans`, `timed_spans`): sizes to a hundredth (constants that happen to
be equal are stored once), latency within two standard errors and `LAUNCHES`, by which the same file
was seen to differ between processes. The 95th percentile is at least the median. How many
parameters are trained is known at least, and decides about constraints alone: where modules are
searched for, those of more parameters may well be better than any seen so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from petra.core.errors import PetraError
from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, WorkerNote
from petra.core.objective import Metrics
from petra.core.pipeline import Pipeline
from petra.core.rivals import Rivals
from petra.core.trial import SCREEN, Fidelity, StageTrace
from petra.execute.account import account
from petra.execute.build import BuildPayload
from petra.execute.builder import Builder
from petra.execute.costs import UNTRAINED, Costs
from petra.execute.plan import steps_of
from petra.execute.prospects import Hopeless, Known, Span, can_be_screened, hopeless
from petra.execute.verdict import Alone, Artifact, Judge
from petra.methods.base import Stage
from petra.model.outline import outline_of

LEAST_TRAINING_S = 5.0  # about twice what building without training, export and timing take
SIZE_ERROR, LAUNCHES, _ERRORS = 0.01, 0.15, 2.0
COUNTED = frozenset({"size_bytes", "params", "macs"})
TRAINED = frozenset({"trainable_params", "trainable_share"})
TIMED = frozenset({"latency_ms", "latency_ratio", "latency_p95_ms", "memory_mb"})
# A rough rate of training by kind of device, so that decisions do not depend on the clock.
_MACS_PER_S, _STEP_S = {"cpu": 3e10, "cuda": 3e12}, 2e-3


@dataclass(frozen=True)
class Screened:
    """What is known of a candidate that was built for its costs alone: `found` says why it can be
    left, None where it has a chance.
    """

    known: Known
    metrics: Metrics
    trace: tuple[StageTrace, ...]
    found: Hopeless | None = None


@dataclass(frozen=True)
class Plan:
    """How a candidate is screened: built at a `fidelity` at which its costs are known. Without one
    it is not, and `why_not` says why.
    """

    fidelity: Fidelity | None = None
    why_not: str = ""


def plan(pipeline: Pipeline, payload: BuildPayload, rivals: Rivals) -> Plan:
    """A function of the study and of what the searcher had been told; no clock is asked. Raises
    ConfigError for a stage that there is not.
    """
    bounded = any(c.metric in TRAINED for c in rivals.constraints)
    if not bounded and not can_be_screened(rivals, COUNTED | TIMED):
        return Plan(why_not="neither constraints nor rivals that its costs could fail")
    outline = outline_of(payload.model)
    stages = [step.stage for step in steps_of(pipeline, payload.task, outline)]
    epochs = [stage.training_epochs() for stage in stages]
    first, total = sum(epochs[: _known_after(stages)]), sum(epochs)
    if first and not (payload.cache and payload.cache_bytes):
        return Plan(why_not="its costs depend on training, and there is no cache to keep it in")
    seconds = _training_s(stages, payload, rivals.baseline) * (1 - first / max(1, total))
    if seconds < LEAST_TRAINING_S:
        return Plan(why_not=f"{seconds:.1f} s of training are left once its costs are known")
    fidelity = Fidelity(epochs=first / total) if first else UNTRAINED
    if not steps_of(pipeline, payload.task, outline, fidelity):
        return Plan(why_not="it does nothing but train")
    return Plan(fidelity)


def more(asked: Fidelity, planned: Fidelity) -> bool:
    """Whether what is asked for trains more than what is planned."""
    if asked.zero_shot:
        return False
    return planned.zero_shot or asked.epochs > planned.epochs


def _known_after(stages: Sequence[Stage]) -> int:
    """How many stages, from the first, must have had their training before costs are known."""
    trained, after = 0, 0
    for i, stage in enumerate(stages):
        trained += stage.training_epochs()
        if trained and stage.structure_from_weights:
            after = i + 1
    return after


def _training_s(stages: Sequence[Stage], payload: BuildPayload, baseline: Metrics) -> float:
    """Seconds of training, roughly: three times the untouched model's MACs for every item, and
    something for every step. Infinite where nobody knows how many items there are.
    """
    items = payload.task.train.known_items()
    if items is None:
        return math.inf
    rate = _MACS_PER_S.get(payload.device.partition(":")[0], 3e12)
    macs = baseline["macs"].mean if "macs" in baseline else 0.0
    total = 0.0
    for stage in stages:
        batches = math.ceil(items / getattr(stage, "batch_size", 128))
        total += stage.training_epochs() * (3 * macs * items / rate + batches * _STEP_S)
    return total


@dataclass(frozen=True)
class Screen:
    """Screens candidates of one study, where a `builder` and a `judge` are."""

    builder: Builder
    judge: Judge
    payload: BuildPayload
    opponent: Artifact
    rivals: Rivals

    def screened(
        self,
        pipeline: Pipeline,
        fidelity: Fidelity,
        place: Path,
        *,
        time_limit_s: float,
        on_note: Callable[[WorkerNote], None],
        alone: Alone,
    ) -> Screened:
        """Build the candidate as it was planned and judge its costs; `place` is used meanwhile.

        Raises what stages, export and `Caller.call` raise. A file that cannot be timed is left to
        whoever measures it in full.
        """
        target = self.payload.target
        on_note(StepBegan(len(pipeline), SCREEN))
        made = self.builder.costs(pipeline, fidelity, target, place, time_limit_s=time_limit_s)
        known, metrics = exact_spans(made), counted(made, self.judge.host)
        found = hopeless(known, self.rivals) or trains_too_much(made, self.rivals)
        slowest = {name: Span(math.inf, math.inf) for name in TIMED}
        if found is None and hopeless({**known, **slowest}, self.rivals):
            artifact = Artifact(place / made.files[0].name, target)
            with suppress(PetraError), alone():
                timed = self.judge.coarse(artifact, against=self.opponent)
                known = {**known, **timed_spans(timed, self.rivals.baseline)}
                metrics = {**metrics, **timed}
            found = hopeless(known, self.rivals)
        return Screened(known, metrics, made.trace, found)


def trains_too_much(made: Costs, rivals: Rivals) -> Hopeless | None:
    """Whether it violates a constraint on what is trained, of which a training that was left out
    may have more.
    """
    trained = account(made.trace)
    spans = {name: Span(trained[name].mean, math.inf) for name in sorted(TRAINED)}
    return hopeless(spans, replace(rivals, front=()))


def counted(made: Costs, host: str) -> Metrics:
    return {
        "size_bytes": Measurement(float(made.size_bytes), unit="B", host=host),
        "params": Measurement(float(made.params), host=host),
        "macs": Measurement(float(made.macs), host=host),
    }


def exact_spans(made: Costs) -> dict[str, Span]:
    size = made.size_bytes
    return {
        "size_bytes": Span(size * (1 - SIZE_ERROR), size * (1 + SIZE_ERROR)),
        "params": Span(made.params, made.params),
        "macs": Span(made.macs, made.macs),
    }


def timed_spans(timed: Metrics, baseline: Metrics) -> dict[str, Span]:
    """Of milliseconds also as the ratio has them, at the untouched model's: a machine is faster at
    one time than at another.
    """
    spans = {name: _within(timed[name]) for name in ("latency_ratio", "latency_ms", "memory_mb")}
    if "latency_ms" in baseline:
        now, ratio = spans["latency_ms"], spans["latency_ratio"]
        usual = baseline["latency_ms"].mean
        low, high = min(now.low, ratio.low * usual), max(now.high, ratio.high * usual)
        spans["latency_ms"] = Span(low, high)
    return {**spans, "latency_p95_ms": Span(spans["latency_ms"].low, math.inf)}


def _within(m: Measurement) -> Span:
    error = _ERRORS * m.stderr
    return Span((m.mean - error) * (1 - LAUNCHES), (m.mean + error) * (1 + LAUNCHES))


def with_prefix(
    trace: Sequence[StageTrace], screened: Sequence[StageTrace]
) -> tuple[StageTrace, ...]:
    """A candidate's trace, where stages that ran when it was screened, and were found in the cache
    afterwards, have the seconds that they took.
    """
    merged = list(trace)
    for i, (full, bare) in enumerate(zip(trace, screened, strict=False)):
        if full.stage != bare.stage or not full.cached:
            break
        merged[i] = replace(full, cached=bare.cached, seconds=bare.seconds)
    return tuple(merged)
