"""Odd results, listeners and confirmations in a run: each costs what it must and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from petra.cli.budget import is_finished
from petra.core.errors import ArtifactError
from petra.core.measurement import Measurement
from petra.core.trial import Failure, Proposal, StageTrace, Trial, TrialStatus
from petra.listener import Clock, Silent
from petra.report.html import write_report
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.session import BaselineError
from petra.store.store import Store
from petra.testing.recorded import RecordedExecutor
from petra.testing.studies import toy_study
from test_study import study

FEW = {"trials": 12}


class Odd(RecordedExecutor):
    """Makes of one trial, or of every confirmation, what it is told to."""

    def __init__(self, change: Callable[[Trial], Trial], number: int = 5) -> None:
        super().__init__()
        self.change, self.number = change, number

    def _result(self, proposal: Proposal) -> Trial:
        trial = super()._result(proposal)
        return self.change(trial) if trial.number == self.number else trial


def with_quality(mean: Any, stderr: Any = 0.0) -> Callable[[Trial], Trial]:
    return lambda t: replace(
        t,
        metrics={**t.metrics, "quality": Measurement(mean, stderr)},
        status=TrialStatus.COMPLETE,
        failure=None,
    )


def with_trace(**details: object) -> Callable[[Trial], Trial]:
    return lambda t: replace(t, trace=(StageTrace("tune", details=details),))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_quality(float("nan")), "quality is nan"),
        (with_quality(float("-inf")), "quality is -inf"),
        (with_quality(0.5, float("nan")), "stderr of quality is nan"),
        (with_quality(1e308), "at most 1e+100"),
        (with_quality("good"), ""),
        (with_quality(None), ""),
        (with_trace(x=float("nan")), "trace cannot be stored"),
        (with_trace(x=object()), "trace cannot be stored"),
        (with_trace(x=10**5000), "trace cannot be stored"),
        (
            lambda t: replace(t, parity={"metric_difference": float("nan")}),
            "parity cannot be stored",
        ),
        (
            lambda t: replace(t, metrics={}, status=TrialStatus.COMPLETE, failure=None),
            "it has no quality",
        ),
        (lambda t: replace(t, seconds=float("inf")), "seconds"),
    ],
)
def test_a_result_that_cannot_be_kept_is_a_failed_trial(
    tmp_path: Path, change: Callable[[Trial], Trial], words: str
) -> None:
    for _ in range(2):  # and stays one
        done = study(tmp_path, budget=FEW).run(executor=lambda _: Odd(change))
        trial = done.trials[5]
        assert len(done.trials) == 13
        assert (trial.status, trial.metrics) == (TrialStatus.FAILED, {})
        assert trial.failure is not None
        assert trial.failure.stage == "record"
        assert words in trial.failure.message


@pytest.mark.parametrize("value", [1e99, -1e99, 1e-320, 0.0])
def test_extreme_qualities_are_numbers_like_others(tmp_path: Path, value: float) -> None:
    done = study(tmp_path, budget={"trials": 20}).run(
        executor=lambda _: Odd(with_quality(value), 6)
    )
    assert len(done.trials) == 21
    assert done.trials[6].metrics["quality"].mean == value
    assert done.front.members


@pytest.mark.parametrize(
    ("stage", "hint"),
    [
        ("export", "replace the operator"),
        ("score", "correct the task's `score`"),
        ("measure", "another runtime"),
        ("compare", "does not compute what PyTorch does"),
    ],
)
def test_a_failing_baseline_is_one_message_with_the_remedy_of_its_step(
    tmp_path: Path, stage: str, hint: str
) -> None:
    failed = Odd(
        lambda t: replace(
            t, status=TrialStatus.FAILED, metrics={}, failure=Failure(stage, "X", "it broke")
        ),
        number=0,
    )
    with pytest.raises(BaselineError, match=f"{stage}: it broke") as caught:
        study(tmp_path).run(executor=lambda _: failed)
    assert hint in caught.value.hint
    assert ("operator" in caught.value.hint) == (stage == "export")


def test_a_baseline_that_cannot_be_kept_is_one_message_too(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="quality is nan"):
        study(tmp_path).run(executor=lambda _: Odd(with_quality(float("nan")), number=0))


class Broken(Silent):
    """Fails at everything."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def finished(self, trial: Trial, clock: Clock) -> None:
        raise self.error

    def message(self, text: str) -> None:
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no disk"), SystemExit(3), RecursionError()])
def test_a_broken_listener_is_said_once(
    tmp_path: Path, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    done = study(tmp_path, budget=FEW).run(Broken(error), executor=RecordedExecutor)
    assert len(done.trials) == 13
    assert capsys.readouterr().err.count("the listener Broken failed") == 1


def test_ctrl_c_in_a_listener_still_interrupts(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path).run(Broken(KeyboardInterrupt()), executor=RecordedExecutor)


# ---- the end -------------------------------------------------------------------------------------


class Unconfirming(RecordedExecutor):
    """Fails to confirm what it is told to, and remembers what it was asked."""

    def __init__(self, fails: Mapping[int, BaseException | float]) -> None:
        super().__init__()
        self.fails, self.asked = fails, list[int]()

    def confirm(self, trial: Trial) -> dict[str, Measurement]:
        self.asked.append(trial.number)
        fault = self.fails.get(trial.number)
        if isinstance(fault, BaseException):
            raise fault
        return super().confirm(trial) | (
            {"quality": Measurement(fault)} if fault is not None else {}
        )


def members(directory: Path) -> list[int]:
    return [t.number for t in StudyFront.load(directory).members]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ArtifactError("the file is gone"), "the file is gone"),
        (ZeroDivisionError("in score"), "ZeroDivisionError: in score"),
        (float("nan"), "quality is nan"),
    ],
)
def test_one_member_that_cannot_be_confirmed_does_not_block_the_others(
    tmp_path: Path, fault: BaseException | float, words: str
) -> None:
    study(tmp_path / "calm", budget=FEW).run(executor=RecordedExecutor)
    front = members(tmp_path / "calm")
    failing = next(n for n in front if n)
    done = study(tmp_path / "odd", budget=FEW).run(
        executor=lambda _: Unconfirming({failing: fault})
    )
    assert {t.number for t in done.trials if t.test} == {0, *front} - {failing}
    record = StudyRecord.load(tmp_path / "odd")
    assert record.stop_reason
    assert is_finished(record)
    assert words in record.unconfirmed[failing]
    assert done.front.unconfirmed == record.unconfirmed
    mended = study(tmp_path / "odd", budget=FEW).run(executor=lambda _: Unconfirming({}))
    assert {t.number for t in mended.trials if t.test} == {0, *front}
    assert StudyRecord.load(tmp_path / "odd").unconfirmed == {}


def test_what_is_not_confirmed_is_shown_with_its_reason(tmp_path: Path) -> None:
    number = members(toy_study(tmp_path))[-1]
    with Store.open(tmp_path, write=True) as store:
        store.set_note("unconfirmed", {str(number): "the file\nis \x1b[31mgone"})
    line = f"{number} is not confirmed: the file is \\x1b[31mgone"
    assert line in str(StudyFront.load(tmp_path))
    assert line in write_report(tmp_path).read_text()


def test_a_study_is_done_when_its_front_is_confirmed(tmp_path: Path) -> None:
    class Stopped(Unconfirming):
        def confirm(self, trial: Trial) -> dict[str, Measurement]:
            if self.asked:
                raise KeyboardInterrupt  # after the first
            return super().confirm(trial)

    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, budget=FEW).run(executor=lambda _: Stopped({}))
    record = StudyRecord.load(tmp_path)
    assert not record.stop_reason
    assert not is_finished(record), "`petra resume` has something to do"
    executor = Unconfirming({})
    study(tmp_path, budget=FEW).run(executor=lambda _: executor)
    assert executor.evaluated == []
    assert len(executor.asked) == len({0, *members(tmp_path)}) - 1
    assert is_finished(StudyRecord.load(tmp_path))
