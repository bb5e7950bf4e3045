"""What files are worth: measured in a process of their own, scored where the task is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, WorkerNote
from petra.core.objective import Metrics
from petra.core.target import Target
from petra.execute.base import Limits
from petra.execute.builder import Caller, ignore, typed
from petra.execute.built import REFERENCE, Built
from petra.execute.judge import Judged, judge, targets_file
from petra.measure.bench_main import Request
from petra.measure.client import run_bench

PREDICTIONS = "predictions.npz"
Alone = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Artifact:
    """A model's main file, and where it runs."""

    path: Path
    target: Target


@dataclass(frozen=True)
class Verdict:
    """All that is known of files: metrics, and how far they are from the PyTorch model."""

    metrics: Metrics
    parity: dict[str, float] = field(default_factory=dict)


def only_what_ships(place: Path) -> None:
    """Remove what files are held against from where they lie."""
    for name in (PREDICTIONS, REFERENCE):
        (place / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Judge:
    """Judges files on the splits in `data`. Measures on this machine, in fresh processes; what is a
    person's own, the task's score, runs where `caller` is. Knows nothing of how they were built.
    """

    caller: Caller
    data: Path
    limits: Limits
    host: str

    def judge(
        self,
        built: Built,
        place: Path,
        target: Target,
        *,
        step: int,
        against: Artifact | None = None,
        thorough: bool = False,
        label: str = "measure",
        time_limit_s: float | None = None,
        on_note: Callable[[WorkerNote], None] = ignore,
        alone: Alone = nullcontext,
    ) -> Verdict:
        """A candidate's files in `place`, on the validation split, and against the PyTorch model.

        Speed is paired with `against` (None: with itself) and measured inside `alone()`, in which
        nothing else of ours runs. Notes are `StepBegan` of `label`, "compare" and "score", as
        `step`. When it is done, only what ships is left in `place`.

        Raises ArtifactError for files that are not as they were built, ParityError, ScoreError, and
        what measuring and scoring raise.
        """
        predictions = place / PREDICTIONS
        on_note(StepBegan(step, label))
        reference = built.reference.check(place)
        main, *_ = (file.check(place) for file in built.files)
        artifact = Artifact(main, target)
        with alone():
            metrics = self._measured(artifact, against, "val", predictions, thorough)
        judged = self._scored(
            "val", predictions, reference, built.quantized, step, time_limit_s, on_note
        )
        only_what_ships(place)
        return Verdict(metrics | self._counted(built, judged), dict(judged.parity))

    def coarse(self, artifact: Artifact, *, against: Artifact) -> dict[str, Measurement]:
        """A first idea of a file's memory and latency, at a tenth of what measuring it costs."""
        request = Request(
            target=artifact.target,
            artifact=str(artifact.path),
            data=str(self.data / "val"),
            baseline=str(against.path),
            baseline_target=against.target,
            coarse=True,
            host=self.host,
        )
        return run_bench(
            request, time_limit_s=self.limits.time_s, memory_limit_mb=self.limits.memory_mb
        )

    def confirm(
        self, artifact: Artifact, *, against: Artifact, predictions: Path
    ) -> dict[str, Measurement]:
        """A file's speed, measured longer, and its quality on the test split; `predictions` is a
        file to be.
        """
        try:
            metrics = self._measured(artifact, against, "test", predictions, thorough=True)
            judged = self._scored("test", predictions, None, False, 0, None, ignore)
        finally:
            predictions.unlink(missing_ok=True)
        return metrics | judged.on(self.host)

    def _measured(
        self,
        artifact: Artifact,
        against: Artifact | None,
        split: str,
        predictions: Path,
        thorough: bool,
    ) -> dict[str, Measurement]:
        other = against or artifact
        request = Request(
            target=artifact.target,
            artifact=str(artifact.path),
            data=str(self.data / split),
            baseline=str(other.path),
            baseline_target=other.target,
            predictions=str(predictions),
            confirm=thorough,
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
            quantized,
            step,
            time_limit_s=self.limits.time_s if time_limit_s is None else time_limit_s,
            memory_limit_mb=self.limits.memory_mb,
            on_note=typed(on_note),
        )

    def _counted(self, built: Built, judged: Judged) -> dict[str, Measurement]:
        """What is not timed."""
        found = {
            "size_bytes": Measurement(float(built.size_bytes), unit="B"),
            "params": Measurement(float(built.params)),
            "macs": Measurement(float(built.macs)),
            **built.counted,
            **judged.scores,
            "train_s": Measurement(built.train_s, unit="s"),
        }
        return {name: replace(m, host=self.host) for name, m in found.items()}
