"""What files are worth: measured in a process of their own, scored where the task is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, StepProgress, WorkerNote
from petra.core.objective import Metrics
from petra.core.rivals import Rivals
from petra.core.target import Target
from petra.execute.account import account
from petra.execute.base import Limits
from petra.execute.builder import Caller, ignore, typed
from petra.execute.built import REFERENCE, UNMERGED, Built
from petra.execute.judge import Judged, difference, judge, targets_file
from petra.execute.unmerged import LATENCY
from petra.measure.bench_main import Request
from petra.measure.client import run_bench
from petra.measure.launches import PRIOR, Spread, of_itself, together
from petra.measure.protocol import Race
from petra.measure.thresholds import latency_thresholds

PREDICTIONS = "predictions.npz"
Alone = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Artifact:
    """A model's main file, and where it runs."""

    path: Path
    target: Target


@dataclass(frozen=True)
class Timing:
    """How files are timed. Of the metrics that are measured on demand, those named in `metrics`
    (None: all). `rivals` are what a candidate is up against: no finer than decides about it; None:
    for its own sake. `spread` is what launches differ by: no finer than that tells, if `raced`.
    """

    metrics: tuple[str, ...] | None = None
    rivals: Rivals | None = None
    spread: Spread = PRIOR
    launches: int = 1
    thorough: bool = False
    raced: bool = True

    def asks_for(self, name: str) -> bool:
        """Whether a metric that is measured on demand is to be."""
        return self.metrics is None or name in self.metrics

    def race(self, known: Metrics) -> Race:
        """What the latency is timed for, by what else is known of a candidate."""
        if not self.raced:
            return Race()
        thresholds = latency_thresholds(self.rivals, known) if self.rivals else None
        return Race(thresholds, self.spread.sd)


@dataclass(frozen=True)
class Verdict:
    """All that is known of files: metrics, and how far they are from the PyTorch model."""

    metrics: Metrics
    parity: dict[str, float] = field(default_factory=dict)


def only_what_ships(place: Path) -> None:
    """Remove what files are held against from where they lie."""
    for name in (PREDICTIONS, REFERENCE):
        (place / name).unlink(missing_ok=True)
    shutil.rmtree(place / UNMERGED, ignore_errors=True)


@dataclass(frozen=True)
class Judge:
    """Judges files on the splits in `data`. Measures on this machine, in fresh processes; what is a
    person's own, the task's score, runs where `caller` is. Knows nothing of how they were built.

    `untouched` are files with the untouched model's predictions, by split: where there is one,
    quality is also compared item by item.
    """

    caller: Caller
    data: Path
    limits: Limits
    host: str
    untouched: Mapping[str, Path] = field(default_factory=dict)

    def judge(
        self,
        built: Built,
        place: Path,
        target: Target,
        *,
        step: int,
        against: Artifact | None = None,
        timing: Timing = Timing(),
        label: str = "measure",
        keep: Path | None = None,
        time_limit_s: float | None = None,
        on_note: Callable[[WorkerNote], None] = ignore,
        alone: Alone = nullcontext,
    ) -> Verdict:
        """A candidate's files in `place`, on the validation split, and against the PyTorch model.

        Speed is paired with `against` (None: with itself, in `timing.launches` processes) and
        measured inside `alone()`, in which nothing else of ours runs. Notes are `StepBegan` of
        `label`, "compare" and "score", as `step`. When it is done, only what ships is left in
        `place`, and the file's predictions in `keep`, where that is asked.

        Raises ArtifactError for files that are not as they were built, ParityError, ScoreError, and
        what measuring and scoring raise.
        """
        predictions = place / PREDICTIONS
        on_note(StepBegan(step, label))
        reference = built.reference.check(place)
        main, *_ = (file.check(place) for file in built.files)
        artifact = Artifact(main, target)
        counted = self._counted(built, timing)
        with alone():
            metrics = self._timed(artifact, against, predictions, timing, counted, on_note)
            metrics |= self._unmerged(built, place, artifact, against, timing, metrics)
        judged = self._scored(
            "val", predictions, reference, built.quantized, step, time_limit_s, on_note
        )
        if keep is not None:
            predictions.replace(keep)
        only_what_ships(place)
        found = metrics | counted | judged.on(self.host)
        return Verdict(found, dict(judged.parity))

    def coarse(self, artifact: Artifact, *, against: Artifact) -> dict[str, Measurement]:
        """A first idea of a file's memory and latency, at a tenth of what measuring it costs."""
        request = Request(
            target=artifact.target,
            artifact=str(artifact.path),
            data=str(self.data / "val"),
            baseline=str(against.path),
            baseline_target=against.target,
            coarse=True,
            metrics=(),
            host=self.host,
        )
        return run_bench(
            request, time_limit_s=self.limits.time_s, memory_limit_mb=self.limits.memory_mb
        )

    def confirm(
        self, artifact: Artifact, *, against: Artifact, predictions: Path
    ) -> dict[str, Measurement]:
        """A file's speed in one launch, measured longer, and its quality on the test split;
        `predictions` is a file to be.
        """
        metrics = self._measured(artifact, against, "test", predictions, Timing(thorough=True))
        judged = self._scored("test", predictions, None, False, 0, None, ignore)
        return metrics | judged.on(self.host)

    def time_again(self, artifact: Artifact, *, against: Artifact) -> dict[str, Measurement]:
        """A file's speed in one further launch, measured as `confirm` does."""
        return self._measured(artifact, against, "test", None, Timing(thorough=True))

    def predict(self, artifact: Artifact, split: str, predictions: Path) -> None:
        """Write a file's predictions of a split to the file `predictions`."""
        self._measured(artifact, None, split, predictions, None)

    def score(
        self, built: Built, place: Path, target: Target, split: str
    ) -> dict[str, Measurement]:
        """What the task measures of files in `place` on a split, and their bytes; no speed."""
        main, *_ = (file.check(place) for file in built.files)
        self.predict(Artifact(main, target), split, place / PREDICTIONS)
        judged = self._scored(split, place / PREDICTIONS, None, False, 0, None, ignore)
        size = Measurement(float(built.size_bytes), unit="B", host=self.host)
        return {"size_bytes": size, **judged.on(self.host)}

    def difference(self, ours: Path, theirs: Path, split: str) -> Measurement:
        """How much more of the quality one file with predictions of a split has than another."""
        return self.caller.call(
            difference,
            ours,
            theirs,
            targets_file(self.data, split),
            time_limit_s=self.limits.time_s,
            memory_limit_mb=self.limits.memory_mb,
        )

    def _timed(
        self,
        artifact: Artifact,
        against: Artifact | None,
        predictions: Path,
        timing: Timing,
        known: Metrics,
        on_note: Callable[[WorkerNote], None],
    ) -> dict[str, Measurement]:
        """Predictions and speed of a candidate, of which `known` is known already."""
        if against is not None:
            first = self._measured(artifact, against, "val", predictions, timing, known)
            return together([first], timing.spread)
        alike = replace(timing, raced=False)
        launches = [self._measured(artifact, None, "val", predictions, alike)]
        for done in range(1, timing.launches):
            on_note(StepProgress(done, timing.launches, "launches"))
            launches.append(self._measured(artifact, None, "val", None, replace(alike, metrics=())))
        return of_itself(launches)

    def _unmerged(
        self,
        built: Built,
        place: Path,
        artifact: Artifact,
        against: Artifact | None,
        timing: Timing,
        merged: Metrics,
    ) -> dict[str, Measurement]:
        """Latency of the candidate with its modules apart, where it was built for that: that of the
        `artifact`, where it is the same.
        """
        if built.unmerged is None:
            return {}
        wanted = {own: name for own, name in LATENCY.items() if timing.asks_for(name)}
        if built.unmerged and wanted and against is not None:
            main, *_ = (file.check(place / UNMERGED) for file in built.unmerged)
            apart = replace(timing, metrics=(), rivals=None)
            found = self._measured(Artifact(main, artifact.target), against, "val", None, apart)
            merged = together([found], timing.spread)
        return {name: merged[own] for own, name in wanted.items()}

    def _measured(
        self,
        artifact: Artifact,
        against: Artifact | None,
        split: str,
        predictions: Path | None,
        timing: Timing | None,
        known: Metrics = MappingProxyType({}),
    ) -> dict[str, Measurement]:
        """What one launch finds; without `timing`, predictions alone."""
        other, timed = against or artifact, timing or Timing()
        request = Request(
            target=artifact.target,
            artifact=str(artifact.path),
            data=str(self.data / split),
            baseline=str(other.path) if timing else "",
            baseline_target=other.target,
            predictions=str(predictions) if predictions else "",
            confirm=timed.thorough,
            metrics=timed.metrics,
            race=timed.race(known),
            host=self.host,
        )
        return run_bench(
            request, time_limit_s=self.limits.time_s, memory_limit_mb=self.limits.memory_mb
        )

    def _scored(
        self,
        split: str,
        predictions: Path,
        reference: Path | None,
        quantized: bool,
        step: int,
        time_limit_s: float | None,
        on_note: Callable[[WorkerNote], None],
    ) -> Judged:
        return self.caller.call(
            judge,
            predictions,
            targets_file(self.data, split),
            reference,
            self.untouched.get(split),
            quantized,
            step,
            time_limit_s=self.limits.time_s if time_limit_s is None else time_limit_s,
            memory_limit_mb=self.limits.memory_mb,
            on_note=typed(on_note),
        )

    def _counted(self, built: Built, timing: Timing) -> dict[str, Measurement]:
        """What is known without running the files."""
        trained = account(built.trace) | {
            "module_bytes": Measurement(float(built.stored_bytes), unit="B")
        }
        found = {
            **{name: m for name, m in trained.items() if timing.asks_for(name)},
            "size_bytes": Measurement(float(built.size_bytes), unit="B"),
            "params": Measurement(float(built.params)),
            "macs": Measurement(float(built.macs)),
            **built.counted,
            "train_s": Measurement(built.train_s, unit="s"),
        }
        return {name: replace(m, host=self.host) for name, m in found.items()}
