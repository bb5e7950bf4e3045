"""A finished study looked at again, under today's versions and on today's machine: do its files
still give what they gave, and are they still as fast beside the untouched model?

Nothing in the study is changed: it says what was measured then, and a recheck what is so here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from petra.core.errors import DataError, ParityError, PetraError
from petra.core.measurement import Measurement
from petra.core.metric import QUALITY
from petra.core.trial import Trial
from petra.front import figures
from petra.measure.bench_main import Request
from petra.measure.client import run_bench, run_benches
from petra.measure.evidence import own_split
from petra.measure.host import describe_host
from petra.measure.npz import read_bounded
from petra.report.bundle import Member, shipped_files
from petra.report.bundle_check import moved
from petra.report.pipeline_text import pipeline_in_words
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.runtimes.base import Arrays
from petra.runtimes.table import runtime_for
from petra.runtimes.verify import INT8_TOLERANCE, METRIC_TOLERANCE, distance
from petra.store.layout import StudyPaths, own_file

if TYPE_CHECKING:
    from petra.tasks.base import Task

Note = Callable[[str], None]
Score = Callable[[Arrays, np.ndarray], Measurement]

FILES, PREDICTIONS, RATIO, LATENCY = "files", "predictions", "latency_ratio", "latency_ms"
UNSCORED = "not scored again: the metric is a function of the task; petra.recheck(..., task=task)"


@dataclass(frozen=True)
class Look:
    """One thing of a model, looked at again: what was measured `then` and `now`, where it is a
    figure; whether it `moved`, and in which words.
    """

    name: str
    said: str
    moved: bool = False
    then: Measurement | None = None
    now: Measurement | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        figures = {"then": self.then, "now": self.now}
        plain = {name: m.as_dict() if m else None for name, m in figures.items()}
        return {"name": self.name, "said": self.said, "moved": self.moved, **plain}


@dataclass(frozen=True)
class Rechecked:
    """What came of looking at one model again."""

    number: int
    words: str
    looks: tuple[Look, ...]

    @property
    def moved(self) -> bool:
        return any(look.moved for look in self.looks)


@dataclass(frozen=True)
class Recheck:
    """What came of looking at a study again. `changed` is what machine and versions are now and
    were when it began, where that differs: name -> (then, now).
    """

    directory: Path
    then: Mapping[str, Any]
    now: Mapping[str, Any]
    models: tuple[Rechecked, ...]
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def moved(self) -> bool:
        """Whether any model gives something else than it gave, or is faster or slower beyond what
        both measurements leave open.
        """
        return any(model.moved for model in self.models)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "directory": str(self.directory),
            "moved": self.moved,
            "host": {"then": dict(self.then), "now": dict(self.now)},
            "changed": {name: list(pair) for name, pair in self.changed.items()},
            "models": [
                {
                    "trial": model.number,
                    "words": model.words,
                    "moved": model.moved,
                    "looks": [look.as_dict() for look in model.looks],
                }
                for model in self.models
            ],
        }


def _unsaid(text: str) -> None:
    """Nobody asked to be told."""


def recheck(
    directory: str | Path,
    *,
    picks: Sequence[str | int] = (),
    speed: bool = True,
    task: Task | None = None,
    note: Note = _unsaid,
) -> Recheck:
    """Look at the untouched model and the front of a study again, or at the members `picks` names.

    Of each: its files by their digests; what it predicts for the stored test items, against what it
    predicted when it was confirmed (as parity: at most 0.1% of the spread, 5% of a quantized
    model's); its quality on the stored validation items; with `speed`, its latency over the
    untouched model's, paired anew in three launches. Quality has moved where it lies outside the
    stored 95% interval, a ratio where its interval and the stored one are apart. Milliseconds are
    shown and are no reason: they are the machine's. petra's own metrics are scored by themselves,
    where that gives the stored quality of the untouched model; for others give the `task`.

    Changes nothing in the study, and runs none of its code. Raises StoreError where there is no
    study, DataError where its stored data is gone, RuntimeUnavailable where its runtime is not
    here. Costs predictions of two splits and some ten seconds of timing for each model.
    """
    record = StudyRecord.load(Path(directory))
    runtime_for(record.config.target).require()
    front = StudyFront.of_record(record)
    data = StudyPaths(record.directory.resolve()).data
    if front.baseline is None or not (data / "val").is_dir():
        raise DataError(
            f"{record.directory}: it has no measured model, or its data is gone",
            hint="`petra verify` checks an exported bundle by itself",
        )
    chosen = [front.pick(which).trial for which in picks] or list(front.members)
    trials = {trial.number: trial for trial in (front.baseline, *chosen)}
    now = describe_host()
    with tempfile.TemporaryDirectory(prefix="petra-recheck-") as scratch:
        again = _Again(record, front, data, Path(scratch), task)
        models = []
        for trial in trials.values():
            note(f"trial {trial.number}: {pipeline_in_words(trial.pipeline)}")
            looks = tuple(again.looks(trial, speed=speed))
            models.append(Rechecked(trial.number, pipeline_in_words(trial.pipeline), looks))
    return Recheck(record.directory, record.host, now, tuple(models), moved(record.host, now))


class _Again:
    """Looks at the models of one study, whose stored splits are in `data`."""

    def __init__(
        self, record: StudyRecord, front: StudyFront, data: Path, scratch: Path, task: Task | None
    ) -> None:
        self.record, self.front, self.data, self.scratch = record, front, data, scratch
        self.paths = StudyPaths(data.parent)
        for split in ("val", "test"):
            own_split(data, split)
        self.targets = _targets(data, "val")
        self.score = self._scorer(task)

    def looks(self, trial: Trial, *, speed: bool) -> list[Look]:
        """All that is looked at of one model; its files alone where they are not its own."""
        member = Member(trial, self.front, self.record.directory)
        try:
            file = shipped_files(member, self.record)[0]
            known = trial.number in self.record.digests
            said = "as the search left them" if known else "of the measured size"
            found = [Look(FILES, said)]
            for split in ("val", "test"):
                if self.paths.predictions(split, trial.number).exists():
                    found.append(self._predictions(trial, file, split))
            found.append(self._quality(trial, file))
            if speed and trial.number:
                found += self._speed(trial, file)
        except PetraError as error:
            return [Look(FILES, f"{error.message}", moved=True)]
        return found

    def _predicted(self, number: int, file: Path, split: str) -> Arrays:
        """What a file predicts for a stored split now."""
        place = self.scratch / f"{number}.{split}.npz"
        if not place.exists():
            run_bench(
                Request(
                    self.record.config.target,
                    str(file.resolve()),
                    data=str(self.data / split),
                    predictions=str(place),
                    metrics=(),
                )
            )
        return read_bounded(place)

    def _predictions(self, trial: Trial, file: Path, split: str) -> Look:
        """Held against what was predicted when the study was made."""
        name = f"{PREDICTIONS} ({split})"
        then = read_bounded(self.paths.predictions(split, trial.number))
        now = self._predicted(trial.number, file, split)
        try:
            if set(then) != set(now):
                raise ParityError(f"it returns {sorted(now)}, and returned {sorted(then)}")
            off = max(distance(now[output], then[output])[1] for output in then)
        except ParityError as error:
            return Look(name, error.message, moved=True)
        allowed = min(float(trial.parity.get("tolerance", INT8_TOLERANCE)), INT8_TOLERANCE)
        if all(np.array_equal(now[output], then[output]) for output in then):
            return Look(name, "the same to the last bit")
        said = f"off by {off:.2g} of their spread, {allowed:g} allowed"
        return Look(name, said, moved=off > allowed)

    def _quality(self, trial: Trial, file: Path) -> Look:
        then = trial.metrics[QUALITY]
        if self.score is None:
            return Look(QUALITY, UNSCORED, then=then)
        now = self.score(self._predicted(trial.number, file, "val"), self.targets)
        low, high = then.interval
        slack = METRIC_TOLERANCE * abs(then.mean) if not then.stderr else 0.0
        out = not low - slack <= now.mean <= high + slack
        said = "outside the stored 95% interval" if out else "within the stored 95% interval"
        return Look(QUALITY, "the same" if now.mean == then.mean else said, out, then, now)

    def _speed(self, trial: Trial, file: Path) -> list[Look]:
        """Paired anew with the untouched model's file, whose digest has been looked at before."""
        assert self.front.baseline is not None
        untouched = Member(self.front.baseline, self.front, self.record.directory)
        request = Request(
            self.record.config.target,
            str(file.resolve()),
            data=str(self.data / "val"),
            baseline=str(shipped_files(untouched, self.record)[0].resolve()),
            confirm=True,
            metrics=(),
            host=str(describe_host()["id"]),
        )
        now, then = run_benches(request), figures(trial)
        (low, high), (least, most) = then[RATIO].interval, now[RATIO].interval
        apart = most < low or high < least
        said = "the 95% intervals are apart" if apart else "the 95% intervals overlap"
        return [
            Look(RATIO, said, apart, then[RATIO], now[RATIO]),
            Look(LATENCY, "of this machine, now", False, then[LATENCY], now[LATENCY]),
        ]

    def _scorer(self, task: Task | None) -> Score | None:
        """The task's, or petra's own of that name, if it gives the quality that is stored."""
        from petra.execute.judge import checked_scores
        from petra.tasks.scores import OWN

        if task is not None:
            return lambda outputs, targets: checked_scores(task, outputs, targets)[QUALITY]
        stored = self.paths.predictions("val", 0)
        if self.record.metric not in OWN or not stored.exists():
            return None
        scorer = OWN[self.record.metric]()

        def score(outputs: Arrays, targets: np.ndarray) -> Measurement:
            import torch

            given = {name: torch.from_numpy(array.copy()) for name, array in outputs.items()}
            real = {name: t.float() if t.is_floating_point() else t for name, t in given.items()}
            wanted = torch.from_numpy(targets.copy())
            return scorer.measure(real, wanted, torch.arange(len(wanted)))

        assert self.front.baseline is not None
        known = self.front.baseline.metrics[QUALITY].mean
        try:
            found = score(read_bounded(stored), self.targets).mean
        except (PetraError, RuntimeError, ValueError, IndexError, TypeError):  # another metric's
            return None
        return score if abs(found - known) <= 1e-6 * max(1.0, abs(known)) else None


def _targets(data: Path, split: str) -> np.ndarray:
    """The stored targets of a split. Raises ArtifactError, and DataError for no array."""
    file = own_file(data, f"{split}.targets.npy")
    try:
        found: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, TypeError, SyntaxError) as error:
        raise DataError(f"{file}: is damaged: {error}", hint="it was changed since") from error
    return found
