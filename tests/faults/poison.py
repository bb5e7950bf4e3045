"""Faulty stages, metrics and data between two clean candidates: the clean ones must not differ in a
bit.

Studies of a few faults each, by `petra.compress` with real workers, exports and measurements.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import poisons
import torch
from attack import Attack
from poisons import FLAGS, SCORES, Applied, Poison
from torch import Tensor, nn

import petra
from petra.core.measurement import Measurement
from petra.core.trial import StageTrace, Trial, TrialStatus
from petra.methods.base import Context, Stage
from petra.methods.table import STAGES
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.class_losses import CrossEntropy
from petra.tasks.classification import Classification
from petra.tasks.data import Split
from petra.tasks.inputs import Outputs
from petra.tasks.losses import Loss
from petra.tasks.scorers import Scorer
from petra.tasks.scores import Accuracy
from petra.training.loop import TrainConfig, fit

A_STUDY = 8  # faults
MARK = 1000.0  # what the first item's first logit is multiples of, for the metric to go wrong
EFFECTS = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])


class Items(torch.utils.data.Dataset[Any]):
    """Somebody's data set, which breaks on demand."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if "items raise" in FLAGS:
            raise KeyError(index)
        if "items exit" in FLAGS:
            sys.exit(1)
        return self.x[index], self.y[index]


@dataclass(frozen=True)
class BrittleScore(Accuracy):
    """Goes wrong where a stage asked for it."""

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        if not (number := self._poison(outputs)):
            return super().value(outputs, targets, ids)
        self._act(number, outputs, targets)
        return float("nan")

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        if not (number := self._poison(outputs)):
            return super().measure(outputs, targets, ids)
        return self._act(number, outputs, targets)  # type: ignore[no-any-return]

    def _poison(self, outputs: Outputs) -> int:
        return round(float(outputs["output"][0, 0]) / MARK)

    def _act(self, number: int, outputs: Outputs, targets: Tensor) -> Any:
        outputs["output"].zero_()
        targets.zero_()
        return SCORES[list(SCORES)[number - 1]][0]()


@dataclass(frozen=True)
class BrittleLoss(CrossEntropy):
    """Goes wrong where a stage asked for it."""

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        if "loss raises" in FLAGS:
            raise RuntimeError("the loss is broken")
        value = super().__call__(outputs, target)
        return value * float("nan") if "loss is NaN" in FLAGS else value


@dataclass(frozen=True)
class Brittle(Classification):
    """Made of the two."""

    measured: tuple[Scorer, ...] = (BrittleScore(),)
    trained: tuple[Loss, ...] = (BrittleLoss(),)


def augment(inputs: Any, generator: torch.Generator) -> Any:
    if "augment raises" in FLAGS:
        raise ValueError("cannot augment")
    return None if "augment returns nothing" in FLAGS else inputs


def train(model: nn.Module, context: Context) -> None:
    """Two epochs that depend on whatever a fault could have left behind."""
    torch.manual_seed(0)
    fit(model, context.task, TrainConfig(epochs=2, lr=0.05, batch_size=32), seed=0)
    with torch.no_grad():
        spare = torch.nn.functional.linear(torch.ones(2, 6), context.teacher[0].weight)
        next(model.parameters()).add_(0.01 * spare.mean() + torch.tensor(0.1) / 3)


def stage_of(poison: Poison | None, kind: str) -> type[Stage]:
    """A stage that trains; with a poison, one that is faulty as well."""
    key = poison and (poison.kind, poison.name)

    @dataclass(frozen=True)
    class Trains(Stage):
        """Trains, after it has done what its poison does."""

        name: ClassVar[str] = kind
        effects: ClassVar[Effects] = EFFECTS

        def apply(self, model: nn.Module, context: Context) -> Applied:
            if key is not None:
                result = poisons.find(*key).act(model, context)
                if isinstance(result, tuple | int):
                    return result  # type: ignore[return-value]
                if key[0] == "metric":
                    with torch.no_grad():
                        last = model[-1].bias  # type: ignore[index]
                        last[0] = MARK * (1 + list(SCORES).index(key[1]))
                    return model, StageTrace(self.name)
            train(model, context)
            return model, StageTrace(self.name, touched=("0",))

    return Trains


def problem() -> tuple[nn.Module, Brittle]:
    torch.manual_seed(0)
    x, y = torch.randn(64, 6), torch.randint(0, 3, (64,))
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    splits = {name: Split.of((x, y), name=name) for name in ("train", "val", "test")}
    return model, Brittle(**splits, augment=augment)


def own_data(task: Brittle) -> Brittle:
    """The same task with somebody's own data set to train on."""
    x = torch.cat([inputs for inputs, _ in task.train.batches(64)])  # type: ignore[arg-type]
    y = torch.cat([targets for _, targets in task.train.batches(64)])
    return Brittle(Split.of(Items(x, y), name="train"), task.val, task.test, augment)


def campaign(scratch: Path, *, seed: int, seconds: float) -> Iterator[Attack]:
    """All poisons in an order drawn from `seed`, as many as there is time for."""
    until = time.monotonic() + seconds
    order = poisons.poisons()
    random.Random(seed).shuffle(order)
    for number, start in enumerate(range(0, len(order), A_STUDY)):
        if time.monotonic() >= until:
            return
        yield from attack(order[start : start + A_STUDY], scratch / str(number))


def attack(chosen: Sequence[Poison], workdir: Path) -> Iterator[Attack]:
    """One study: clean, poison, clean, poison, ..., clean."""
    kinds = ["clean-0"]
    stages: dict[str, type[Stage]] = {"clean-0": stage_of(None, "clean-0")}
    for i, poison in enumerate(chosen, start=1):
        for kind, its in ((f"poison-{i}", poison), (f"clean-{i}", None)):
            stages[kind] = stage_of(its, kind)
            kinds.append(kind)
    for kind, stage in stages.items():
        STAGES.register(kind, stage)
    model, task = problem()
    try:
        study = petra.compress(
            model,
            own_data(task) if any(poison.name.startswith("items") for poison in chosen) else task,
            search={"name": "uniform"},
            space={
                "stages": {kind: {} for kind in kinds},
                "max_length": 1,
                "initial": [[kind] for kind in kinds],
            },
            budget={"trials": len(kinds)},
            limits={"trial_time": "60 s", "trial_memory": "4 GiB", "build_threads": 2},
            workdir=workdir,
        )
        trials = {trial.pipeline.stages[0].kind: trial for trial in study.trials if trial.number}
        for i, poison in enumerate(chosen, start=1):
            fault = judged(poison, trials, i) or contaminated(workdir, trials, i)
            if f"poison-{i}" not in trials:
                yield Attack(poison.kind, "no trial", f"{poison.name}: {fault}")
                continue
            outcome = "failed with its reason" if trials[f"poison-{i}"].failure else "completed"
            yield Attack(poison.kind, outcome, fault and f"{poison.name}: {fault}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | GeneratorExit) and "poison" not in str(error):
            raise
        names = ", ".join(poison.name for poison in chosen)
        yield Attack(
            "any", "the study ended", f"{type(error).__name__}: {error}; one of: {names}"[:1000]
        )
    finally:
        STAGES.forget(*stages)


def judged(poison: Poison, trials: dict[str, Trial], i: int) -> str:
    """What is wrong with the faulty candidate's own trial; '' if nothing."""
    trial = trials.get(f"poison-{i}")
    if trial is None:
        return "it has no trial"
    if trial.failure is None:
        return "" if poison.words is None else "it should fail"
    if (poison.words or "") not in trial.failure.message:
        return f"its reason should say {poison.words!r}: {trial.failure}"[:400]
    return "its reason is too long" if len(trial.failure.message) > 10_000 else ""


def contaminated(workdir: Path, trials: dict[str, Trial], i: int) -> str:
    """How the clean candidate after the faulty one differs from the first; '' if in nothing."""
    first, after = trials["clean-0"], trials.get(f"clean-{i}")
    if after is None or after.status is not TrialStatus.COMPLETE:
        return f"the next candidate did not complete: {after and after.failure}"[:400]
    if after.metrics["quality"] != first.metrics["quality"]:
        return f"quality {after.metrics['quality']} instead of {first.metrics['quality']}"
    if (workdir / after.artifact).read_bytes() != (workdir / first.artifact).read_bytes():
        return "the next candidate's file is another"
    return ""
