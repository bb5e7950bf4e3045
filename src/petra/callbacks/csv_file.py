"""A table of all trials as a file that any spreadsheet opens, written as they end."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import ClassVar

from petra.callbacks.base import Callback, StudyRun
from petra.core.errors import ConfigError
from petra.core.metric import Catalogue
from petra.core.text import first_line, printable, shown
from petra.core.trial import Trial
from petra.listener import Clock
from petra.report.pipeline_text import pipeline_in_words

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.csv")
_FIRST = ("trial", "status", "pipeline", "seconds", "finished_at", "reason")


class CsvFile(Callback):
    """``trials.csv`` in the study's directory: a line for each trial, with all that was measured of
    it; what is confirmed later is in the report. A study that is resumed writes it anew, with the
    trials of earlier sessions first.

    `file`: its name. Nothing outside the study's directory is written.
    """

    name: ClassVar[str] = "csv"

    def __init__(self, file: str = "trials.csv") -> None:
        if not isinstance(file, str) or not _FILE.fullmatch(file):
            raise ConfigError(
                f"csv: file: got {shown(file)}",
                hint="the name of a file in the study's directory, such as trials.csv",
            )
        self._name = file
        self._path = Path()
        self._columns: tuple[str, ...] = ()

    def on_study_start(self, run: StudyRun) -> None:
        self._path = run.directory / self._name
        self._columns = (*_FIRST, *Catalogue(run.task).names())
        if self._path.is_symlink():
            raise OSError(f"{self._path} is a link")
        self._write([list(self._columns), *map(self._row, run.finished)], mode="w")

    def on_trial_end(self, trial: Trial, clock: Clock) -> None:
        self._write([self._row(trial)], mode="a")

    def _write(self, rows: list[list[object]], *, mode: str) -> None:
        with self._path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    def _row(self, trial: Trial) -> list[object]:
        why = first_line(trial.failure.message) if trial.failure else ""
        values = {name: found.mean for name, found in trial.metrics.items()}
        first: list[object] = [
            trial.number,
            trial.status.value,
            pipeline_in_words(trial.pipeline),
            trial.seconds,
            trial.finished_at,
            printable(why),
        ]
        return first + [values.get(name, "") for name in self._columns[len(_FIRST) :]]
