"""The Pareto set of a study: the feasible trials that no other beats in every objective at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from petra.core.errors import ConfigError, did_you_mean
from petra.core.measurement import Measurement
from petra.core.metric import QUALITY, Catalogue, Metric, describe, task_metric
from petra.core.objective import Constraint, Objective, violation
from petra.core.text import first_line, printable, whole_number
from petra.core.trial import Trial, TrialStatus
from petra.moo.dominance import dominates, front_mask
from petra.moo.selection import knee
from petra.search.scaling import scale

PICKS = ("smallest", "fastest", "best", "knee")


def confirmed(trial: Trial, metric: str) -> Measurement:
    """A cost of a trial, by its longer final measurement where there is one.

    Not for quality, which has two splits.
    """
    return trial.test.get(metric, trial.metrics[metric])


@dataclass(frozen=True)
class Front:
    """Non-dominated complete trials, and the untouched model when nothing dominates it and it meets
    the constraints.

    `members` are sorted by size, or by the first other cost that is an objective. `trials` are all
    of the study's: plots show them, and an empty front explains itself by them. `task` are the
    metrics that the task measures, the quality first. `unconfirmed` says why members have no
    measurements on the test split.
    """

    members: list[Trial]
    baseline: Trial | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    trials: Sequence[Trial] = field(repr=False)
    task: tuple[Metric, ...] = (task_metric(QUALITY, maximize=True),)
    unconfirmed: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def of(
        trials: Sequence[Trial],
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        *,
        task: Sequence[Metric] = (),
        maximize_quality: bool = True,
        unconfirmed: Mapping[int, str] | None = None,
    ) -> Front:
        """The front of `trials`, of which number 0 is the untouched model.

        O(n log n) up to three objectives.

        `task` are the metrics that the task measures. `maximize_quality` counts only without them,
        when quality is no objective, which has its own direction.
        """
        everything = sorted(trials, key=lambda t: t.number)
        baseline = next((t for t in everything if t.number == 0 and t.measured), None)
        complete = [t for t in everything if t.number > 0 and t.status is TrialStatus.COMPLETE]
        candidates = [t for t in complete if t.fidelity.full]
        if baseline and violation(constraints, baseline.metrics, baseline.metrics) == 0:
            candidates.insert(0, baseline)
        candidates = [
            t for t in candidates if all(math.isfinite(o.cost(t.metrics)) for o in objectives)
        ]
        costs = np.array([[o.cost(t.metrics) for o in objectives] for t in candidates])
        members = (
            [t for t, on in zip(candidates, front_mask(costs), strict=True) if on]
            if candidates
            else []
        )
        by = _sorted_by(objectives)
        members.sort(key=lambda t: (by.cost(t.metrics), t.number))
        up = next((o.maximize for o in objectives if o.metric == QUALITY), maximize_quality)
        known = tuple(task) or (task_metric(QUALITY, maximize=up),)
        shown = {0, *(t.number for t in members)}
        reasons = {
            number: reason for number, reason in (unconfirmed or {}).items() if number in shown
        }
        goals, bounds = tuple(objectives), tuple(constraints)
        return Front(members, baseline, goals, bounds, everything, known, reasons)

    @property
    def catalogue(self) -> Catalogue:
        """How every metric of the study is shown."""
        return Catalogue(self.task)

    @property
    def metric(self) -> str:
        """The title of the quality."""
        return self.task[0].title

    @property
    def maximize_quality(self) -> bool:
        return bool(self.task[0].maximize)

    def __len__(self) -> int:
        return len(self.members)

    # ---- choosing --------------------------------------------------------------------------------

    def choose(self, which: str | int) -> Trial:
        """One member, by name or trial number. Choosing never looks at quality on the test split.

        'best' has the best validation quality, 'smallest' the fewest bytes. 'fastest' is the one of
        best quality among those whose latency ratio cannot be told from the lowest one (95%
        intervals overlap): nobody should pay accuracy for timing noise. 'knee' bulges most towards
        the ideal: from there on, a little more of one objective costs much of another; only members
        count that the search's hypervolume counts (with less than half of the quality lost). Ties
        go to the better quality, then to the lower number. Raises ConfigError for another name, for
        a trial that is not on the front, and when the front is empty.
        """
        if isinstance(which, str) and (number := whole_number(which)) is not None:
            which = number
        if isinstance(which, str) and which not in PICKS:
            raise ConfigError(
                f"pick: got {which!r}",
                hint=f"{did_you_mean(which, PICKS)}, or the number of a trial on the front",
            )
        if not self.members:
            raise self._empty()
        if isinstance(which, int):
            return self._numbered(which)
        if which == "knee":
            return self._knee()
        tied = self._tied(which)
        return min(tied, key=lambda t: (self._loss(t), t.number))

    def _knee(self) -> Trial:
        """The knee of the members within the region that hypervolume counts, of all when none lies
        there.

        A model that lost half of its quality bulges far, being tiny, and nobody wants it.
        """
        inside = self.members
        if self.baseline:
            scaling = scale(self.objectives, self.constraints, self.baseline)
            inside = [
                t for t in self.members if (scaling.costs(t) < scaling.reference).all()
            ] or self.members
        return inside[knee([[o.cost(t.metrics) for o in self.objectives] for t in inside])]

    def _tied(self, which: str) -> list[Trial]:
        """Members that no cost tells from the first by `which`."""
        if which == "smallest":
            least = min(t.metrics["size_bytes"].mean for t in self.members)
            return [t for t in self.members if t.metrics["size_bytes"].mean == least]
        if which == "fastest":
            lowest = min(
                (confirmed(t, "latency_ratio") for t in self.members), key=lambda m: m.mean
            )
            return [
                t
                for t in self.members
                if confirmed(t, "latency_ratio").interval[0] <= lowest.interval[1]
            ]
        return self.members

    def _loss(self, trial: Trial) -> float:
        quality = trial.metrics["quality"].mean
        return -quality if self.maximize_quality else quality

    def labels(self) -> dict[int, list[str]]:
        """Which member each name of `PICKS` stands for: trial number -> names."""
        found: dict[int, list[str]] = {}
        for name in PICKS if self.members else ():
            found.setdefault(self.choose(name).number, []).append(name)
        return found

    def _numbered(self, number: int) -> Trial:
        for trial in self.members:
            if trial.number == number:
                return trial
        members = ", ".join(str(t.number) for t in self.members)
        raise ConfigError(f"pick: {self._why_not(number)}", hint=f"on the front: {members}")

    def _why_not(self, number: int) -> str:
        trial = next((t for t in self.trials if t.number == number), None)
        if trial is None:
            return f"there is no trial {number}"
        if trial.failure:
            return (
                f"trial {number} failed in {printable(trial.failure.stage)}:"
                f" {first_line(trial.failure.message)}"
            )
        if trial.status is TrialStatus.INFEASIBLE or trial is self.baseline:
            broken = self._broken(trial)
            if broken:
                return f"trial {number} violates {'; '.join(broken)}"
        mine = [o.cost(trial.metrics) for o in self.objectives]
        for other in self.members:
            if dominates([o.cost(other.metrics) for o in self.objectives], mine):
                return (
                    f"trial {number} is not on the front: trial {other.number} is nowhere worse and"
                    " somewhere better"
                )
        return f"trial {number} is not on the front"

    def _broken(self, trial: Trial) -> list[str]:
        base = self.baseline.metrics if self.baseline else trial.metrics
        return [str(c) for c in self.constraints if c.violation(trial.metrics, base) > 0]

    def why_empty(self) -> str:
        """Why there is no member, counting reasons; '' when there are some."""
        if self.members:
            return ""
        if self.baseline is None:
            return "the untouched model has not been measured"
        candidates = [t for t in self.trials if t.number > 0]
        if not candidates:
            return "no trial has finished, and the untouched model does not meet the constraints"
        broken = Counter(text for t in candidates if t.measured for text in self._broken(t))
        failed = Counter(
            printable(f"{t.failure.stage}: {t.failure.kind}") for t in candidates if t.failure
        )
        parts = [f"{count} violate {text}" for text, count in broken.most_common()]
        parts += [f"{count} failed in {text}" for text, count in failed.most_common(5)]
        return f"none of {len(candidates)} trials is feasible: " + "; ".join(parts)

    def _empty(self) -> ConfigError:
        loosen = (
            "loosen the constraints, or give the search more time"
            if self.constraints
            else "see `petra show --all`"
        )
        return ConfigError(f"the front is empty: {self.why_empty()}", hint=loosen)


def _sorted_by(objectives: Sequence[Objective]) -> Objective:
    """Size when it is an objective, else the first cost, else quality."""
    costs = [o for o in objectives if not describe(o.metric).sampled]
    sizes = [o for o in costs if o.metric == "size_bytes"]
    return (sizes or costs or list(objectives))[0]
