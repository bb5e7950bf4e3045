"""The hub by itself: what it makes of a session's events."""

from __future__ import annotations

import threading

import pytest
from hearing import Everything, hub, measured

from petra.callbacks.base import Callback
from petra.core.errors import StoreError
from petra.core.notes import StepBegan, StepProgress
from petra.core.pipeline import Pipeline
from petra.core.trial import Proposal
from petra.front import Front
from petra.listener import Clock


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
