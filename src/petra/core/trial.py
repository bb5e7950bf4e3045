"""What is known of one candidate.

Records only: they cross process boundaries and go into the store as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from petra.core.cards import card, figure
from petra.core.errors import ConfigError
from petra.core.measurement import Measurement
from petra.core.metric import describe
from petra.core.pipeline import Pipeline
from petra.core.text import printable, shown


class TrialStatus(StrEnum):
    """How a trial ended. Every candidate ends as one of these."""

    COMPLETE = "complete"  # exported, verified, measured, within the constraints
    INFEASIBLE = "infeasible"  # measured, but outside a constraint of the user's
    FAILED = "failed"  # a stage, the export, the parity check or the process failed
    TIMED_OUT = "timed_out"  # exceeded the time limit of one trial
    SCREENED = "screened"  # left before it was trained, exported or timed in full


SCREEN = "screen"
"""The step in which a candidate is left early: in failures, and in the last trace of one that would
have been left, but was evaluated in full to see whether that would have been right."""


EXPLAINED = "explained"
"""Among the details of a trial's last stage: where an error that rose much comes from."""


@dataclass(frozen=True)
class Failure:
    """Why a trial has no result: the stage it was in, the error's type and message, the memory it
    had reached. Of a screened one: ``screen``, what it was left for, and the reason in words.
    """

    stage: str
    kind: str
    message: str
    peak_memory_mb: float = 0.0


@dataclass(frozen=True)
class StageTrace:
    """What one stage really did to the model.

    `skipped` maps a layer to the reason it was left alone; `details` holds the method's own
    JSON-able facts (calibration samples, ranks chosen, epochs run, ...). `uncached` says why the
    model after this stage could not be kept for other pipelines that begin alike; '' where it was,
    or where there is no cache.
    """

    stage: str
    touched: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    params_before: int = 0
    params_after: int = 0
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    cached: bool = False
    details: Mapping[str, object] = field(default_factory=dict)
    uncached: str = ""


@dataclass(frozen=True)
class Fidelity:
    """How much effort an evaluation makes: shares in (0, 1] of the epochs of training stages and of
    the training data, or none at all (`zero_shot`: training stages are left out).

    Only what is evaluated in full is compared with the untouched model and can be on the front.
    Raises ConfigError for a share out of range.
    """

    epochs: float = 1.0
    data: float = 1.0
    zero_shot: bool = False

    def __post_init__(self) -> None:
        for name, share in (("epochs", self.epochs), ("data", self.data)):
            if not 0 < share <= 1:
                raise ConfigError(
                    f"fidelity.{name}: got {shown(share)}", hint="a share is above 0, at most 1"
                )

    @property
    def full(self) -> bool:
        return self == FULL


FULL = Fidelity()


@dataclass(frozen=True)
class Origin:
    """Where a proposal came from: the moves that made it, in order, and the trial it was made from
    (None: drawn at random).
    """

    moves: tuple[str, ...]
    parent: int | None = None

    @property
    def name(self) -> str:
        """The moves in a word, for people."""
        return "+".join(self.moves)


GIVEN = Origin(("given",))  # by the user
RECIPE = Origin(("recipe",))  # one of petra's own to begin with
PAST = Origin(("past",))  # on the front of a past study


@dataclass(frozen=True)
class Proposal:
    """A pipeline to try, numbered in the order of proposing.

    `told` are the trials whose results the searcher learned between the proposal before this one
    and this one, in the order of learning: what a proposal was made from is all that it and those
    before it were told, and the untouched model.
    """

    number: int
    pipeline: Pipeline
    origin: Origin = GIVEN
    fidelity: Fidelity = FULL
    told: tuple[int, ...] = ()

    def ended(self, status: TrialStatus, **results: Any) -> Trial:
        """The trial of this proposal; `results` are further fields of `Trial`."""
        return Trial(self.number, self.pipeline, status, self.origin, self.fidelity, **results)


@dataclass(frozen=True)
class Trial:
    """One finished candidate. `metrics` holds validation-split and cost measurements by name, of a
    screened one those that were known by then; `test` is filled only for confirmed members of the
    final front. `artifact` is a path relative to the study directory.
    """

    number: int
    pipeline: Pipeline
    status: TrialStatus
    origin: Origin = GIVEN
    fidelity: Fidelity = FULL
    metrics: Mapping[str, Measurement] = field(default_factory=dict)
    test: Mapping[str, Measurement] = field(default_factory=dict)
    failure: Failure | None = None
    trace: Sequence[StageTrace] = ()
    artifact: str = ""
    parity: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    finished_at: float = 0.0  # seconds since the study began, summed over its sessions

    @property
    def measured(self) -> bool:
        """Whether it has a full set of metrics (feasible or not)."""
        return self.status in (TrialStatus.COMPLETE, TrialStatus.INFEASIBLE)

    @property
    def failed(self) -> bool:
        """Whether something went wrong, in the time that it had or for lack of it."""
        return self.status in (TrialStatus.FAILED, TrialStatus.TIMED_OUT)

    @property
    def comparable(self) -> bool:
        """Whether it was measured at full fidelity: only such trials rank with the untouched
        model, and only they can be on the front.
        """
        return self.measured and self.fidelity.full

    def __repr__(self) -> str:
        known = (name for name in _TELLING if name in self.metrics)
        said = [self.status.value, *(f"{name} {figure(self.metrics[name])}" for name in known)]
        said += [f"{self.failure.stage}: {self.failure.kind}"] if self.failure else []
        return printable(f"Trial({self.number}: {self._stages()}; {', '.join(said)})")

    def _stages(self) -> str:
        return " -> ".join(stage.kind for stage in self.pipeline) or "untouched model"

    def _repr_html_(self) -> str:
        rows: dict[str, list[str]] = {}
        for name in dict.fromkeys((*self.metrics, *self.test)):
            found = (self.metrics.get(name), self.test.get(name))
            rows[describe(name).title] = ["" if m is None else figure(m) for m in found]
        how = [self.status.value, str(self.pipeline)]
        how += [f"{self.failure.stage}: {self.failure.message}"] if self.failure else []
        return card(f"Trial {self.number}", how, ("", "validation", "test"), rows)


_TELLING = ("quality", "latency_ratio", "size_bytes")  # metrics in a trial's one line
