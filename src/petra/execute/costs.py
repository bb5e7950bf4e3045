"""What a candidate costs, found without training it. Runs where candidates are built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from petra.core.notes import StepBegan
from petra.core.pipeline import Pipeline
from petra.core.target import Target
from petra.core.trial import Fidelity, StageTrace
from petra.execute.build import BuildPayload, Note, compressed, exported
from petra.execute.built import BuiltFile
from petra.measure.operations import count_macs
from petra.model.surgery import count_parameters

UNTRAINED = Fidelity(zero_shot=True)


@dataclass(frozen=True)
class Costs:
    """A candidate that was built without training: its files, the main one first, what is counted
    of its structure, and traces of what ran.
    """

    files: tuple[BuiltFile, ...]
    params: int
    macs: int
    trace: tuple[StageTrace, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def build_costs(
    payload: BuildPayload,
    note: Note,
    pipeline: Pipeline,
    fidelity: Fidelity,
    target: Target,
    place: Path,
) -> Costs:
    """Build the pipeline at a fidelity at which it trains as little as its costs need, and export
    it into `place`. What ran as it does in full is cached for that, and for others that begin
    alike.

    Raises what stages and export raise.
    """
    model, trace = compressed(payload, note, pipeline, fidelity)
    note(StepBegan(len(pipeline), "export"))
    files = exported(model, payload, target, place)
    return Costs(
        files=tuple(map(BuiltFile.of, files)),
        params=trace[-1].params_after if trace else count_parameters(payload.model),
        macs=count_macs(model, payload.task.example(2)),
        trace=trace,
    )
