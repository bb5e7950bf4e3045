"""Several studies side by side: what differs between them, whose models beat whose, and how far
each search came.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from petra.core.errors import ConfigError
from petra.core.measurement import Measurement
from petra.core.metric import describe
from petra.core.objective import Constraint, Objective, violation
from petra.core.trial import Trial
from petra.front import Front, figures
from petra.moo.archive import Archive
from petra.report.comparable import Axes, axes_of
from petra.report.record import StudyRecord
from petra.search.scaling import scale


@dataclass(frozen=True)
class Side:
    """One of the studies; `name` is the shortest that tells its directory from the others'."""

    name: str
    record: StudyRecord
    front: Front

    @property
    def baseline(self) -> Trial:
        base = self.front.baseline
        assert base is not None  # `compare` refuses a study without one
        return base


@dataclass(frozen=True)
class Rival:
    """A member of another study's front."""

    study: str
    number: int

    def __str__(self) -> str:
        return f"{self.study} {self.number}"


@dataclass(frozen=True)
class Compared:
    """A member of a study's front among those of all others.

    `beaten_by`: these are certainly better on some axis and nowhere worse. `no_better_than`: these
    are certainly better on some axis too, and on others worse, but by less than the errors tell.
    """

    study: str
    trial: Trial
    beaten_by: tuple[Rival, ...] = ()
    no_better_than: tuple[Rival, ...] = ()


@dataclass(frozen=True)
class Step:
    """What a search had reached when a trial ended: after `seconds`, as the number-th result."""

    seconds: float
    results: int
    volume: float


@dataclass(frozen=True)
class Comparison:
    """`tested` says whether what the tasks measure is judged on the test split, else on the
    validation split. `reference` is the common reference point, by metric, and `curves` have the
    hypervolume below it by study, () where nothing is comparable.
    """

    sides: tuple[Side, ...]
    axes: Axes
    members: tuple[Compared, ...]
    tested: bool
    shared: tuple[Constraint, ...]
    reference: Mapping[str, float]
    curves: Mapping[str, tuple[Step, ...]]

    def of(self, study: str) -> list[Compared]:
        return [m for m in self.members if m.study == study]

    def figure(self, trial: Trial, metric: str) -> Measurement | None:
        """What a member is judged by."""
        return _figure(trial, metric, tested=self.tested)


def compare(directories: Sequence[str | Path]) -> Comparison:
    """Compare the studies in `directories`, in their order: finished, interrupted or running ones.

    Members are judged by the studies' common objectives, as far as these mean the same in all (see
    `petra.report.comparable`), with the errors of both measurements. Hypervolume is that of what
    the searches saw, the validation split, in units of the first study's untouched model; trials
    count that meet the constraints which all studies share.

    Raises ConfigError for fewer than two studies, one given twice, or one whose untouched model has
    not been measured; StoreError for a directory without a study. Costs reading all trials, and
    their hypervolume point by point.
    """
    sides = _sides([Path(d) for d in directories])
    axes = axes_of([side.record for side in sides])
    tested = all(t.test for side in sides for t in side.front.members)
    members = tuple(_judged(sides, axes.objectives, tested=tested))
    first, *others = (side.record.constraints for side in sides)
    shared = tuple(c for c in first if all(c in more for more in others))
    reference, curves = _volumes(sides, axes.objectives, shared)
    return Comparison(sides, axes, members, tested, shared, reference, curves)


def _sides(directories: Sequence[Path]) -> tuple[Side, ...]:
    if len(directories) < 2:
        raise ConfigError(
            f"compare: {len(directories) or 'no'} study is given",
            hint="give the directories of two or more: petra compare runs/first runs/second",
        )
    places = [d.resolve() for d in directories]
    twice = [str(d) for d, p in zip(directories, places, strict=True) if places.count(p) > 1]
    if twice:
        raise ConfigError(f"compare: {twice[0]} is given twice", hint="give different studies")
    sides = []
    for directory, name in zip(directories, _names(directories), strict=True):
        record = StudyRecord.load(directory)
        front = record.front()
        if front.baseline is None:
            raise ConfigError(
                f"compare: {directory}: {front.why_empty()}", hint=f"petra resume {directory}"
            )
        sides.append(Side(name, record, front))
    return tuple(sides)


def _names(directories: Sequence[Path]) -> list[str]:
    """As few of the last parts of the paths as tell them apart."""
    places = [d.resolve() for d in directories]
    for depth in range(1, max(len(p.parts) for p in places) + 1):
        names = ["/".join(p.parts[-depth:]).removeprefix("//") for p in places]
        if len(set(names)) == len(names):
            return names
    return [str(p) for p in places]


# ---- members -------------------------------------------------------------------------------------


def _figure(trial: Trial, metric: str, *, tested: bool) -> Measurement | None:
    if describe(metric).sampled:
        return (trial.test if tested else trial.metrics).get(metric)
    return figures(trial).get(metric)


def _judged(
    sides: Sequence[Side], axes: Sequence[Objective], *, tested: bool
) -> Iterator[Compared]:
    for side in sides:
        for trial in side.front.members:
            beaten: list[Rival] = []
            doubtful: list[Rival] = []
            for other in (s for s in sides if s is not side):
                for rival in other.front.members:
                    gains = list(_gains(trial, rival, axes, tested=tested))
                    if not gains or max(gains)[0] <= 0 or min(gains)[0] < 0:
                        continue
                    worse = any(gain < 0 for _, gain in gains)
                    (doubtful if worse else beaten).append(Rival(other.name, rival.number))
            yield Compared(side.name, trial, tuple(beaten), tuple(doubtful))


def _gains(
    one: Trial, other: Trial, axes: Sequence[Objective], *, tested: bool
) -> Iterator[tuple[int, float]]:
    """How `other` differs from `one` on each axis: 1 where it is certainly better, -1 where it is
    certainly worse, 0 where the 95% interval of the difference holds 0; and by how much it is
    better. Of what is counted every difference is certain; of two studies' measurements the errors
    are taken for independent, which of the same items says too little, never too much.
    """
    for axis in axes:
        a, b = (_figure(t, axis.metric, tested=tested) for t in (one, other))
        if a is None or b is None or not (math.isfinite(a.mean) and math.isfinite(b.mean)):
            yield -1, -math.inf
            continue
        gain = (b.mean - a.mean) * (1 if axis.maximize else -1)
        certain = abs(gain) > 1.96 * math.hypot(a.stderr, b.stderr)
        yield (0 if not certain else 1 if gain > 0 else -1), gain


# ---- hypervolume ---------------------------------------------------------------------------------


def _volumes(
    sides: Sequence[Side], axes: Sequence[Objective], shared: Sequence[Constraint]
) -> tuple[Mapping[str, float], Mapping[str, tuple[Step, ...]]]:
    """The common reference point, and by study what its search had reached below it and when."""
    if not axes:
        return {}, {}
    scaling = scale(axes, [c for c in shared if c.metric in {a.metric for a in axes}],
                    sides[0].baseline)  # fmt: skip
    curves = {}
    for side in sides:
        archive, steps = Archive(scaling.reference), []
        ordered = sorted(side.record.trials, key=lambda t: (t.finished_at, t.number))
        for results, trial in enumerate(ordered):
            known = side.baseline.metrics
            if scaling.usable(trial) and violation(shared, trial.metrics, known) == 0:
                archive.add(trial.number, scaling.costs(trial))
            steps.append(Step(trial.finished_at, results, archive.volume))
        curves[side.name] = tuple(steps)
    return scaling.worst(), curves


def volume_at(
    curve: Sequence[Step], *, seconds: float = math.inf, results: float = math.inf
) -> float:
    """The hypervolume that was reached within so many seconds of search and so many results."""
    within = [s.volume for s in curve if s.seconds <= seconds and s.results <= results]
    return max(within, default=0.0)
