"""What is shown while a study runs, and how `resume` understands a larger budget."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from petra.cli.budget import extended, is_finished
from petra.cli.progress import LineProgress, LiveProgress, watching
from petra.core.notes import StepBegan, StepProgress
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.listener import Clock
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.testing.studies import toy_study


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> StudyFront:
    return StudyFront.load(toy_study(tmp_path_factory.mktemp("study"), trials=12))


def screen(width: int = 100, *, terminal: bool) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=terminal,
        color_system=None,
        legacy_windows=False,
    )


def printed(console: Console, thing: object = None) -> str:
    if thing is not None:
        console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def candidates(front: StudyFront) -> list[Trial]:
    return [t for t in front.trials if t.number]


def test_the_live_block_follows_the_events(front: StudyFront) -> None:
    assert front.baseline is not None
    live = LiveProgress(screen(terminal=True), front.objectives)
    assert "starting" in printed(screen(terminal=False), live)
    live.started(front.baseline, Clock(0, 5.0, max_trials=10))
    first, second = candidates(front)[:2]
    live.stage(Proposal(1, first.pipeline), StepBegan(0, "tune"))
    live.stage(Proposal(1, first.pipeline), StepProgress(2, 7, "epoch 1/3"))
    live.stage(Proposal(2, second.pipeline), StepBegan(len(second.pipeline), "export"))
    text = printed(screen(terminal=False), live)
    assert f"trial 1: tune (stage 1 of {len(first.pipeline)}): 2/7 epoch 1/3" in text
    assert "trial 2: export" in text
    assert "nothing finished yet" in text
    live.finished(first, Clock(1, 10.0, max_trials=10))
    text = printed(screen(terminal=False), live)
    assert "trial 1:" not in text
    assert "1 complete" in text
    assert "10%" in text
    assert "1 min" in text or "90 s" in text  # nine more trials at ten seconds each
    assert f"accuracy {first.metrics['quality'].mean:.4f}" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_live_block_fits_its_width(front: StudyFront, width: int) -> None:
    assert front.baseline is not None
    live = LiveProgress(screen(terminal=True), front.objectives)
    live.started(front.baseline, Clock(0, 5.0, max_seconds=60))
    long = candidates(front)[-1]
    live.stage(Proposal(99, long.pipeline), StepProgress(1, 2, "a very long text " * 20))
    for trial in candidates(front):
        live.finished(trial, Clock(trial.number, 6.0, max_seconds=60))
    assert max(map(len, printed(screen(width, terminal=False), live).splitlines())) <= width


def test_a_better_trial_is_announced_above_the_block(front: StudyFront) -> None:
    assert front.baseline is not None
    console = screen(terminal=True)
    live = LiveProgress(console, front.objectives)
    live.started(front.baseline, Clock(0, 5.0, max_trials=10))
    first = next(t for t in candidates(front) if t.status is TrialStatus.COMPLETE)
    better = {**first.metrics, "size_bytes": replace(first.metrics["size_bytes"], mean=1.0)}
    live.finished(first, Clock(1, 10.0, max_trials=10))
    live.finished(replace(first, number=77, metrics=better), Clock(2, 20.0, max_trials=10))
    assert "trial 77: best size 1 B" in printed(console)


def test_elsewhere_every_finished_trial_is_a_line(front: StudyFront) -> None:
    assert front.baseline is not None
    console = screen(terminal=False)
    with watching(console, front.objectives) as listener:
        assert isinstance(listener, LineProgress)
        listener.started(front.baseline, Clock(3, 5.0, max_trials=10))
        good = candidates(front)[0]
        listener.finished(good, Clock(4, 9.0, max_trials=10))
        failure = Failure("prune", "StageRefused", "no channels [left]\nmore")
        listener.finished(
            replace(good, number=5, status=TrialStatus.FAILED, metrics={}, failure=failure),
            Clock(5, 9, 10),
        )
        listener.message("stopped: enough")
    lines = printed(console).splitlines()
    assert lines[0].startswith("untouched model: accuracy")
    assert "x" not in lines[0].partition("latency ")[2].partition(",")[0]
    assert lines[1] == "continuing after 3 trials"
    assert lines[2].startswith(" 40% trial 1: complete, accuracy")
    assert "failed, prune: no channels [left]," in lines[3]
    assert lines[4] == "stopped: enough"


# ---- budgets -------------------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    """Twelve of twelve trials done, in 100 seconds."""
    return replace(StudyRecord.load(toy_study(tmp_path, trials=12)), elapsed_s=100.0)


def limits(record: StudyRecord, time: str | None, trials: str | None) -> tuple[object, object]:
    budget = extended(record, time, trials)
    assert budget is not None
    return budget["time"], budget["trials"]


def test_a_budget_is_a_new_total_or_an_addition(record: StudyRecord) -> None:
    assert is_finished(record)
    assert extended(record, None, None) is None
    assert limits(record, None, "50") == (None, 50)
    assert limits(record, None, "+5") == (None, 17)
    assert limits(record, "1 h", "20") == (3600.0, 20)


def test_a_spent_limit_that_is_not_raised_is_lifted(record: StudyRecord) -> None:
    assert limits(record, "+1 min", None) == (160.0, None)


def test_an_unspent_limit_stays(record: StudyRecord) -> None:
    config = record.config.model_copy(
        update={"budget": record.config.budget.model_copy(update={"trials": 30, "time": 200.0})}
    )
    unspent = replace(record, config=config)
    assert not is_finished(unspent)
    assert limits(unspent, "+1 min", None) == (260.0, 30)
