"""What of a pipeline runs at a fidelity: which stages, as what, and what their results are called.

Two evaluations share all that runs alike in both, whatever their fidelity: results are kept under
the pipeline that *ran*, and random numbers are derived from it. A prefix in which no stage trains
is the same at every fidelity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, Fidelity
from petra.methods.base import Stage
from petra.methods.table import STAGES
from petra.space.outline import ModelOutline
from petra.tasks.base import Task


@dataclass(frozen=True)
class Step:
    """A stage that runs: its place in the pipeline, from 0, and all that has run when it has, it
    being the last.
    """

    index: int
    stage: Stage
    ran: Pipeline

    @property
    def spec(self) -> StageSpec:
        return self.ran.stages[-1]


def steps_of(
    pipeline: Pipeline, task: Task, outline: ModelOutline, fidelity: Fidelity = FULL
) -> Iterator[Step]:
    """The stages of `pipeline` that run at `fidelity`, in order.

    Raises ConfigError for a stage that there is not, when it comes to it.
    """
    ran = Pipeline()
    for index, spec in enumerate(pipeline):
        stage: Stage | None = STAGES.get(spec.kind).from_spec(spec, task, outline)
        if stage is not None and fidelity.zero_shot:
            spec, stage = _untrained(spec, stage)
        if stage is not None:
            ran = Pipeline((*ran.stages, spec))
            yield Step(index, stage, ran)


def _untrained(spec: StageSpec, stage: Stage) -> tuple[StageSpec, Stage | None]:
    """The stage without its training, spelt with the parameters in which it differs."""
    bare = stage.untrained()
    if bare is None or bare == stage:
        return spec, bare
    changed = {
        f.name: getattr(bare, f.name)
        for f in dataclasses.fields(bare)
        if getattr(bare, f.name) != getattr(stage, f.name)
    }
    return spec.replace(**changed), bare
