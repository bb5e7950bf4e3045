"""The Pareto set of a study: the feasible trials that no other beats in every objective at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from petra.core.errors import ConfigError, did_you_mean
from petra.core.measurement import Measurement
from petra.core.metric import QUALITY, Catalogue, Metric, describe, task_metric
from petra.core.objective import Constraint, Metrics, Objective
from petra.core.text import first_line, printable, whole_number
from petra.core.trial import Trial, TrialStatus
from petra.moo.dominance import dominates, front_mask
from petra.moo.selection import knee
from petra.near_miss import NearMiss, counted, nearest_miss
from petra.search.scaling import scale

PICKS = ("smallest", "fastest", "best", "knee")


def figures(trial: Trial) -> Metrics:
    """What counts of a trial: its costs by the longer final measurement where there is one, and
    what the task measures on the validation split. O(1) for trials that were not confirmed.
    """
    if not trial.test:
        return trial.metrics
    again = {name: m for name, m in trial.test.items() if not describe(name).sampled}
    return {**trial.metrics, **again}


def broken(constraints: Sequence[Constraint], trial: Trial, baseline: Trial) -> list[Constraint]:
    """Constraints that a measured trial does not meet: by what was measured of it and of the
    untouched model at one time, in the search or when both were confirmed.
    """
    mine, base = (
        (figures(trial), figures(baseline)) if trial.test else (trial.metrics, baseline.metrics)
    )
    return [c for c in constraints if c.violation(mine, base) > 0]


def confirmed(trial: Trial, metric: str) -> Measurement:
    """One of the `figures`. KeyError when it was not measured."""
    return figures(trial)[metric]


@dataclass(frozen=True)
class Front:
    """Non-dominated complete trials, and the untouched model when nothing dominates it and it meets
    the constraints.

    `members` are sorted by size, or by the first other cost that is an objective. `trials` are all
    of the study's: plots show them, and an empty front explains itself by them. `task` are the
    metrics that the task measures, the quality first. `unconfirmed` says why members have no
    measurements on the test split, `no_better` which members cannot be told in quality from which
    model of lower costs. `measured_again` says of which trials the search had measured something
    else, and what. `seeds` are qualities on the test split of members that were built again, each
    with another seed.
    """

    members: list[Trial]
    baseline: Trial | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    trials: Sequence[Trial] = field(repr=False)
    task: tuple[Metric, ...] = (task_metric(QUALITY, maximize=True),)
    unconfirmed: Mapping[int, str] = field(default_factory=dict)
    no_better: Mapping[int, int] = field(default_factory=dict)
    seeds: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    measured_again: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def of(
        trials: Sequence[Trial],
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        *,
        task: Sequence[Metric] = (),
        maximize_quality: bool = True,
        unconfirmed: Mapping[int, str] | None = None,
        no_better: Mapping[int, int] | None = None,
        seeds: Mapping[int, tuple[float, ...]] | None = None,
        measured_again: Mapping[int, str] | None = None,
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
        if baseline:
            candidates = [
                t
                for t in (baseline, *candidates)
                if (t.number and not t.test) or not broken(constraints, t, baseline)
            ]
        candidates = [
            t for t in candidates if all(math.isfinite(o.cost(figures(t))) for o in objectives)
        ]
        costs = np.array([[o.cost(figures(t)) for o in objectives] for t in candidates])
        members = (
            [t for t, on in zip(candidates, front_mask(costs), strict=True) if on]
            if candidates
            else []
        )
        by = _sorted_by(objectives)
        members.sort(key=lambda t: (by.cost(figures(t)), t.number))
        up = next((o.maximize for o in objectives if o.metric == QUALITY), maximize_quality)
        known = tuple(task) or (task_metric(QUALITY, maximize=up),)
        shown = {0, *(t.number for t in members)}
        reasons = {
            number: reason for number, reason in (unconfirmed or {}).items() if number in shown
        }
        doubtful = {one: other for one, other in (no_better or {}).items() if {one, other} <= shown}
        again = {number: found for number, found in (seeds or {}).items() if number in shown}
        return Front(
            members, baseline, tuple(objectives), tuple(constraints), everything, known, reasons,
            doubtful, again, dict(measured_again or {}),
        )  # fmt: skip

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

    def __repr__(self) -> str:
        numbers = ", ".join(str(t.number) for t in self.members) or "none"
        return f"{type(self).__name__}(trials on it: {numbers}; of {len(self.trials)})"

    def over_seeds(self, trial: Trial) -> Measurement | None:
        """Quality on the test split of a trial's pipeline over all the seeds with which it was
        built, its own first, and the error of that mean; None where it was built once.
        """
        others = self.seeds.get(trial.number, ())
        if not others or QUALITY not in trial.test:
            return None
        return Measurement.of([trial.test[QUALITY].mean, *others])

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
        return inside[knee([[o.cost(figures(t)) for o in self.objectives] for t in inside])]

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
            left = trial.status is TrialStatus.SCREENED
            how = "was screened" if left else f"failed in {printable(trial.failure.stage)}"
            return f"trial {number} {how}: {first_line(trial.failure.message)}"
        if trial.measured and (beyond := self._broken(trial)):
            return f"trial {number} violates {'; '.join(beyond)}"
        if not trial.fidelity.full:
            return f"trial {number} was evaluated at a reduced fidelity"
        mine = [o.cost(figures(trial)) for o in self.objectives]
        for other in self.members:
            if dominates([o.cost(figures(other)) for o in self.objectives], mine):
                return (
                    f"trial {number} is not on the front: trial {other.number} is nowhere worse and"
                    " somewhere better"
                )
        return f"trial {number} is not on the front"

    def _broken(self, trial: Trial) -> list[str]:
        return [str(c) for c in broken(self.constraints, trial, self.baseline or trial)]

    def why_empty(self) -> str:
        """Why there is no member, counting reasons; '' when there are some."""
        if self.members:
            return ""
        if self.baseline is None:
            return "the untouched model has not been measured"
        candidates = [t for t in self.trials if t.number > 0]
        if not candidates:
            return "no trial has finished, and the untouched model does not meet the constraints"
        parts = counted(candidates, self._broken)
        if (nearest := self.nearest()) is not None:
            parts.append(str(nearest))
        none = "none of {} trials" if len(candidates) > 1 else "not the one trial that there was"
        return f"{none.format(len(candidates))} is feasible: " + "; ".join(parts)

    def nearest(self) -> NearMiss | None:
        """The trial that came nearest to the constraints of an empty front, and what would help."""
        if self.members or self.baseline is None:
            return None
        candidates = [t for t in self.trials if t.number > 0]
        return nearest_miss(candidates, self.constraints, self.baseline.metrics)

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
