"""What of a pipeline runs at a fidelity: which stages, as what, how far they train, and what their
results are called.

The share of epochs is one of the whole pipeline's training, in order: stages train in full until it
is used up, within a stage perhaps, and those after that are left without training. So a lower rung
is the beginning of a higher one, whose training goes on where it was stopped.

Two evaluations share all that runs alike in both, whatever their fidelity: results are kept under
the pipeline that *ran*, and random numbers are derived from it. A prefix that trains in full or not
at all is the same at every fidelity.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, Fidelity
from petra.methods.base import Stage
from petra.methods.table import STAGES
from petra.space.outline import ModelOutline
from petra.tasks.base import Task

# How a shortened stage is spelt; no parameter's name has a space.
_EPOCHS, _DATA = "epochs trained", "share of data"


@dataclass(frozen=True)
class Step:
    """A stage that runs: its place in the pipeline, from 0, and all that has run when it has, it
    being the last.

    `epochs` is how long it trains, over all its trainings; None: to its end. `data` is the share of
    the training split that it trains on. `course` is `ran` as it is when it trains to its end: its
    random numbers, and the states in which its training is stopped, are the course's.
    """

    index: int
    stage: Stage
    ran: Pipeline
    course: Pipeline
    epochs: Fraction | None = None
    data: float = 1.0

    @property
    def spec(self) -> StageSpec:
        return self.ran.stages[-1]


def steps_of(
    pipeline: Pipeline, task: Task, outline: ModelOutline, fidelity: Fidelity = FULL
) -> tuple[Step, ...]:
    """The stages of `pipeline` that run at `fidelity`, in order."""
    stages = [STAGES.get(spec.kind).from_spec(spec, task, outline) for spec in pipeline]
    left = _epochs(stages, fidelity)
    steps: list[Step] = []
    ran = Pipeline()
    for index, (spec, stage) in enumerate(zip(pipeline, stages, strict=True)):
        wanted = stage.training_epochs()
        if wanted and not left:
            bare = stage.untrained()
            if bare is not None:
                ran = Pipeline((*ran.stages, _spelt(spec, stage, bare)))
                steps.append(Step(index, bare, ran, ran))
            continue
        data = fidelity.data if wanted else 1.0
        course = spec.replace(**{_DATA: data}) if data < 1 else spec
        epochs = left if wanted > left else None
        left -= min(left, Fraction(wanted))
        cut = course if epochs is None else course.replace(**{_EPOCHS: float(epochs)})
        before, ran = ran, Pipeline((*ran.stages, cut))
        steps.append(Step(index, stage, ran, Pipeline((*before.stages, course)), epochs, data))
    return tuple(steps)


def _epochs(stages: list[Stage], fidelity: Fidelity) -> Fraction:
    """Of training that the whole pipeline gets."""
    if fidelity.zero_shot:
        return Fraction(0)
    share = Fraction(fidelity.epochs).limit_denominator(10_000)
    return share * sum(stage.training_epochs() for stage in stages)


def _spelt(spec: StageSpec, stage: Stage, bare: Stage) -> StageSpec:
    """The spec of a stage without its training: with the parameters in which it differs."""
    changed = {
        f.name: getattr(bare, f.name)
        for f in dataclasses.fields(bare)
        if getattr(bare, f.name) != getattr(stage, f.name)
    }
    return spec.replace(**changed)
