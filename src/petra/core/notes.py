"""What a worker says while it works on a candidate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepBegan:
    """A step began. `index` is that of a pipeline's stage; the number of stages for the export, and
    one more for what is done with the files (`name`: measure, compare, score).
    """

    index: int
    name: str


@dataclass(frozen=True)
class StepProgress:
    """`done` of `total` parts of the step that began last are over; `text` says what they are."""

    done: int
    total: int
    text: str


WorkerNote = StepBegan | StepProgress
