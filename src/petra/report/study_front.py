"""What `study.front` is: the front of a study directory, with its tables, plots and files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from petra.front import Front
from petra.report.bundle import Member
from petra.report.notebook import front_card
from petra.report.record import StudyRecord
from petra.report.tables import front_view, to_text

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, repr=False)
class StudyFront(Front):
    """A front, and the study `directory` in which the files of its members lie."""

    directory: Path = field(kw_only=True)

    @staticmethod
    def load(directory: str | Path) -> StudyFront:
        """The front of the study in `directory`, which may still be running.

        Raises StoreError when there is none. Reads, of many trials, only those on the front; all
        others once something else of them is asked for than their number.
        """
        return StudyFront.of_record(StudyRecord.load(directory, whole=False))

    @staticmethod
    def of_record(record: StudyRecord) -> StudyFront:
        """The front of a study that has been read."""
        return StudyFront(**vars(record.front()), directory=record.directory)

    def pick(self, which: str | int) -> Member:
        """One member, ready to be exported: 'smallest', 'fastest', 'best', 'knee' or its number.

        `Front.choose` says what the names mean, and which errors are raised.
        """
        return Member(self.choose(which), self, self.directory)

    def table(self) -> pd.DataFrame:
        """One row per member: quality on both splits, costs, and these over the baseline."""
        from petra.report.frame import front_frame

        return front_frame(self)

    def plot(self) -> go.Figure:
        """Every pair of objectives: all trials, the front, the untouched model, the constraints."""
        from petra.report.plots import front_figure

        return front_figure(self)

    def __str__(self) -> str:
        return to_text(front_view(self, width=100), width=100)

    def _repr_html_(self) -> str:
        return front_card(self)
