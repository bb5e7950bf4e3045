"""The hub by itself, told what a session would tell it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hearing import Everything, Failing

from petra.callbacks.base import EVENTS, Callback, StudyRun
from petra.callbacks.hub import Hub, ears_of
from petra.core.errors import StoreError
from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, StepProgress
from petra.core.objective import named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.front import Front
from petra.listener import Clock


class Notes(dict[str, Any]):
    """Of a study that is not there."""

    def note(self, name: str) -> Any:
        return self.get(name)

    def set_note(self, name: str, value: object) -> None:
        self[name] = value


def hub(*callbacks: object, last: Callable[[], Any] = lambda: (None, "done"), **told: Any) -> Hub:
    run = StudyRun(Path(), {}, named_objectives(["quality", "size_bytes"]), **told)
    return Hub(ears_of((), (), callbacks), run, Notes(), last)


def measured(number: int, quality: float, size: float) -> Trial:
    metrics: Mapping[str, Measurement] = {
        "quality": Measurement(quality),
        "size_bytes": Measurement(size),
        "latency_ratio": Measurement(1.0),
    }
    pipeline = Pipeline((StageSpec("tune", {"epochs": number}),) if number else ())
    return Proposal(number, pipeline).ended(TrialStatus.COMPLETE, metrics=metrics)


def test_a_front_changes_with_its_members_alone() -> None:
    told = Everything()
    clock = Clock(0, 0.0)
    with hub(told) as one:
        one.started(measured(0, 0.9, 100.0), clock)
        one.finished(measured(1, 0.8, 200.0), clock)
        one.finished(measured(2, 0.8, 50.0), clock)
        one.finished(measured(3, 0.95, 20.0), clock)
    assert told.of("front") == [[0], [2, 0], [3]]


def test_a_trial_begins_with_its_first_note() -> None:
    told = Everything()
    proposal = Proposal(4, Pipeline())
    with hub(told, finished=(measured(0, 0.9, 1.0),)) as one:
        for note in (StepBegan(0, "tune"), StepProgress(1, 2, "epoch 1/1"), StepBegan(1, "export")):
            one.stage(proposal, note)
        one.stage(Proposal(0, Pipeline()), StepBegan(1, "confirm"))
    assert told.of("begins") == [4]
    assert told.of("stage") == ["tune", "export", "confirm"]
    assert told.of("progress") == [1]


def test_calls_of_one_callback_never_overlap() -> None:
    class Counting(Callback):
        inside = most = heard = 0

        def on_stage(self, proposal: Proposal, step: StepBegan) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.001)
            self.heard += 1
            self.inside -= 1

    counting = Counting()
    with hub(counting) as one:
        threads = [
            threading.Thread(
                target=lambda n=n: [
                    one.stage(Proposal(n, Pipeline()), StepBegan(0, "x")) for _ in range(10)
                ]
            )
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (counting.most, counting.heard) == (1, 80)


def test_a_study_that_is_gone_ends_without_a_front() -> None:
    def gone() -> tuple[Front, str]:
        raise StoreError("the directory is gone")

    told = Everything()
    with pytest.raises(ZeroDivisionError), hub(told, last=gone):
        raise ZeroDivisionError
    assert told.of("end") == [(None, "")]


@pytest.mark.parametrize("event", EVENTS)
def test_what_fails_is_said_once_and_costs_nothing(
    event: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, sound = Failing(event, ValueError("no \x1b[31mdisk")), Everything()
    with hub(failing, sound) as one:
        one.started(measured(0, 0.9, 100.0), Clock(0, 0.0))
        for n in (1, 2):
            for note in (StepBegan(0, "tune"), StepProgress(1, 2, "epoch 1/1")):
                one.stage(Proposal(n, Pipeline()), note)
            one.finished(measured(n, 0.9 + n / 100, 50.0), Clock(n, 1.0))
            one.message("well")
    said = capsys.readouterr().err
    assert said.count("the callback Failing failed in") == 1
    assert f"failed in {event}: ValueError: no \\x1b[31mdisk" in said
    assert {name for name, _ in sound.heard} == {
        "start", "begins", "stage", "progress", "ends", "front", "says", "end"
    }  # fmt: skip
    assert sound.of("ends") == [0, 1, 2]
    if event not in ("on_study_end", "on_study_start"):
        assert len(failing.heard) < len(sound.heard), "it hears no more"
        assert failing.of("end") == []
