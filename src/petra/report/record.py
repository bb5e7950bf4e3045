"""All that a study directory knows, read once and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from petra.config import StudyConfig, parse_config
from petra.core.objective import Constraint, Objective, named_objectives
from petra.core.trial import Trial
from petra.store.store import Store


@dataclass(frozen=True)
class StudyRecord:
    """A study as it lies on disk: finished, interrupted or still running.

    `metric` is the name of the task's quality metric. `stop_reason` is '' until the search has ended
    and its front has been confirmed; `eager_latency_ms` is the untouched model in eager PyTorch, None before it was
    measured. `unconfirmed` are members of the front that could not be measured on the test split, and why.
    """

    directory: Path
    config: StudyConfig
    host: Mapping[str, object]
    trials: tuple[Trial, ...]
    metric: str
    maximize: bool
    stop_reason: str
    eager_latency_ms: float | None
    elapsed_s: float
    unconfirmed: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def load(directory: str | Path) -> StudyRecord:
        """Read a study. Raises StoreError when there is none, ConfigError when its settings are unreadable."""
        directory = Path(directory)
        with Store.open(directory, write=False) as store:
            task = store.note("task") or {"metric": "quality", "maximize": True}
            return StudyRecord(
                directory=directory,
                config=parse_config(store.config, where=str(directory)),
                host=store.host,
                trials=tuple(store.trials()),
                metric=str(task["metric"]),
                maximize=bool(task["maximize"]),
                stop_reason=str(store.note("stop_reason") or ""),
                eager_latency_ms=store.note("eager_latency_ms"),
                elapsed_s=store.elapsed(),
                unconfirmed=_reasons(store.note("unconfirmed")),
            )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return named_objectives(self.config.objectives, maximize_quality=self.maximize)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return self.config.parsed_constraints()


def _reasons(note: object) -> dict[int, str]:
    """Trial number -> text on one line, of what can be read in the note."""
    if not isinstance(note, dict):
        return {}
    plain = {int(n): " ".join(str(text).split()) for n, text in note.items() if str(n).isdecimal()}
    return {n: "".join(c for c in text if c.isprintable()) for n, text in plain.items()}
