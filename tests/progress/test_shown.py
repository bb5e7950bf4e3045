"""What is shown of a study while it runs: on a terminal, in a pipe, in a notebook."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, StepProgress
from petra.core.objective import Constraint
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.listener import Clock, Phase
from petra.progress.follow import MOST_RUNNING, Progress
from petra.progress.notebook import MOST_LINES, Box
from petra.progress.show import showing
from petra.progress.terminal import Block, LinesAbove
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


def live(front: StudyFront, *constraints: str) -> tuple[Progress, Block, Console]:
    """What follows a study, the block and the lines that stay."""
    console = screen(200, terminal=True)
    progress = Progress(LinesAbove(console))
    progress.about(front.objectives, [Constraint.parse(c) for c in constraints])
    return progress, Block(progress.snapshot), console


def block(shown: Block, width: int = 100) -> str:
    return printed(screen(width, terminal=False), shown)


def candidates(front: StudyFront) -> list[Trial]:
    return [t for t in front.trials if t.number]


def test_the_block_follows_the_events(front: StudyFront) -> None:
    assert front.baseline is not None
    progress, shown, _ = live(front)
    assert "starting" in block(shown)
    progress.message(Phase("measuring the untouched model"))
    progress.stage(Proposal(0, Pipeline()), StepBegan(1, "measure"))
    assert "untouched model: measuring" in block(shown)
    progress.started(front.baseline, Clock(0, 5.0, max_trials=10))
    progress.message(Phase("searching"))
    first, second = candidates(front)[:2]
    progress.stage(Proposal(1, first.pipeline), StepBegan(0, "tune"))
    progress.stage(Proposal(1, first.pipeline), StepProgress(2, 7, "epoch 1/3"))
    progress.stage(Proposal(2, second.pipeline), StepBegan(len(second.pipeline), "export"))
    text = block(shown)
    assert "searching" in text
    assert "untouched model" not in text, "it is measured"
    assert f"trial 1: tune (stage 1 of {len(first.pipeline)}): 2/7 epoch 1/3" in text
    assert "trial 2: exporting" in text
    progress.finished(first, Clock(1, 10.0, max_trials=10))
    text = block(shown)
    assert "trial 1:" not in text
    assert "1 complete" in text
    assert "10%" in text
    assert "1 min" in text or "90 s" in text  # nine more trials at ten seconds each
    assert f"accuracy {first.metrics['quality'].mean:.4f}" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_block_fits_its_width_and_few_lines(front: StudyFront, width: int) -> None:
    assert front.baseline is not None
    progress, shown, _ = live(front)
    progress.message(Phase("confirming 12 models on the test split"))
    progress.started(front.baseline, Clock(0, 5.0, max_seconds=60))
    for number, trial in enumerate(candidates(front)):
        note = StepProgress(1, 2, "a very long text " * 20)
        progress.stage(Proposal(90 + number, trial.pipeline), note)
    for trial in candidates(front):
        progress.finished(trial, Clock(trial.number, 6.0, max_seconds=60))
    lines = block(shown, width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= MOST_RUNNING + 4
    assert "more" in lines[MOST_RUNNING + 1]


def test_every_trial_leaves_a_line_above_the_block(front: StudyFront) -> None:
    assert front.baseline is not None
    progress, _, console = live(front)
    progress.started(front.baseline, Clock(0, 5.0, max_trials=99))
    progress.message(Phase("searching"))
    for trial in candidates(front):
        progress.finished(trial, Clock(trial.number, 10.0, max_trials=99))
    lines = printed(console).splitlines()
    assert lines[0].startswith("untouched model: accuracy")
    assert "x" not in lines[0].partition("latency ")[2].partition(",")[0], "no ratio to itself"
    assert [int(line.split()[1].rstrip(":")) for line in lines[1:]] == list(range(1, 13))


def infeasible(front: StudyFront, size: float) -> Trial:
    good = next(t for t in candidates(front) if t.status is TrialStatus.COMPLETE)
    metrics = {**good.metrics, "size_bytes": Measurement(size, unit="B")}
    return replace(good, status=TrialStatus.INFEASIBLE, metrics=metrics)


def test_an_infeasible_trial_says_which_constraint_and_by_how_much(front: StudyFront) -> None:
    assert front.baseline is not None
    progress, _, console = live(front, "size <= 60 kB", "quality >= 0.999")
    progress.started(front.baseline, Clock(0, 5.0, max_trials=10))
    progress.finished(infeasible(front, 75e3), Clock(1, 9.0, max_trials=10))
    line = printed(console).splitlines()[-1]
    assert "infeasible (size_bytes 75.0 kB is 25% above 60.0 kB and quality " in line
    assert "below 0.9990)" in line


def test_pipelines_of_the_same_name_say_what_differs(front: StudyFront) -> None:
    assert front.baseline is not None
    progress, _, console = live(front)
    progress.started(front.baseline, Clock(0, 5.0, max_trials=10))
    plain = {"observer": "histogram", "samples": 128, "per_channel": False}
    given = [plain, {**plain, "per_channel": True}, {**plain, "samples": 512}]
    good = next(t for t in candidates(front) if t.status is TrialStatus.COMPLETE)
    for number, params in enumerate(given, 1):
        tried = Pipeline((StageSpec("quantize.static", params),))
        trial = replace(good, number=number, pipeline=tried)
        progress.finished(trial, Clock(number, 9.0, max_trials=10))
    names = [line.rpartition(": ")[2] for line in printed(console).splitlines()[-3:]]
    assert names == [
        "quantize.static (histogram)",
        "quantize.static (histogram, per_channel)",
        "quantize.static (histogram, samples 512)",
    ]


def test_elsewhere_every_event_is_a_line(front: StudyFront) -> None:
    assert front.baseline is not None
    console = screen(terminal=False)
    with showing(True, console) as progress:
        progress.about(front.objectives, [])
        progress.message(Phase("examining model and data"))
        progress.message(Phase("examining model and data"))
        progress.started(front.baseline, Clock(3, 5.0, max_trials=10))
        good = candidates(front)[0]
        progress.finished(good, Clock(4, 9.0, max_trials=10))
        failure = Failure("prune", "StageRefused", "no channels [left]\nmore")
        failed = replace(good, number=5, status=TrialStatus.FAILED, metrics={}, failure=failure)
        progress.finished(failed, Clock(5, 9, 10))
        progress.message("stopped: \x1b[31menough")
    lines = printed(console).splitlines()
    assert lines[0] == "examining model and data"
    assert lines[1].startswith("untouched model: accuracy")
    assert lines[2] == "continuing after 3 trials"
    assert lines[3].startswith(" 40% trial 1: complete, accuracy")
    assert "failed, prune: no channels [left]," in lines[4]
    assert lines[5] == "stopped: \\x1b[31menough"


def test_nothing_is_shown_where_it_is_not_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    with showing(False) as progress:
        progress.message("hello")
    assert capfd.readouterr() == ("", "")


# ---- time ----------------------------------------------------------------------------------------


def test_the_time_that_is_left_includes_the_final_measurements() -> None:
    by_trials = Clock(5, 50.0, max_trials=10, kept_s=30.0)
    assert by_trials.left_s == 80.0
    assert by_trials.done == pytest.approx(50 / 130)
    by_time = Clock(5, 50.0, max_seconds=100.0, kept_s=30.0)
    assert (by_time.left_s, by_time.done) == (50.0, 0.5)
    assert Clock(5, 50.0, max_trials=6, max_seconds=1e4, kept_s=30.0).left_s == 40.0
    over = Clock(3, 50.0, max_trials=10, kept_s=30.0, over=True)
    assert over.left_s == 30.0, "a goal was met: no more trials"
    assert Clock(5, 50.0).left_s is None


def test_nothing_says_that_all_is_done_while_it_works(front: StudyFront) -> None:
    assert front.baseline is not None
    progress, shown, _ = live(front)
    progress.started(front.baseline, Clock(0, 5.0, max_trials=1))
    ended = Clock(1, 9e5, max_trials=1, kept_s=0.5, over=True)
    progress.finished(candidates(front)[0], ended)
    progress.message(Phase("confirming 1 model on the test split"))
    text = block(shown)
    assert "99%" in text
    assert "nearly done" in text
    assert "100%" not in text
    assert "0.0 s left" not in text


# ---- a notebook ----------------------------------------------------------------------------------


def test_the_box_of_a_notebook_has_the_moment_and_the_lines(front: StudyFront) -> None:
    assert front.baseline is not None
    box = Box()
    progress = Progress(box)
    progress.about(front.objectives, [])
    assert "<progress" in box.html(progress.snapshot())
    progress.started(front.baseline, Clock(0, 5.0, max_trials=10))
    progress.message(Phase("searching <b>"))
    progress.finished(candidates(front)[0], Clock(1, 10.0, max_trials=10))
    html = box.html(progress.snapshot())
    assert "searching &lt;b&gt;" in html
    assert "value=0.100" in html
    assert "trial 1: complete" in html
    assert "<script" not in html
    assert not re.search(r"(?<!-)color:|background: #", html), "the notebook's own colours"
    progress.came_out("front: 3 models")
    done = box.html(None)
    assert done.index("front: 3 models") < done.index("<details>") < done.index("trial 1: complete")
    assert "<progress" not in done


def test_the_box_keeps_to_the_latest_lines() -> None:
    box = Box()
    for number in range(MOST_LINES + 50):
        box.line(f"line {number}")
    html = box.html(None)
    assert "line 49<" not in html
    assert "line 50<" in html
    assert f"{MOST_LINES + 50} lines" in html
