"""What the figures of a report show, and which rows and columns its tables keep in a terminal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from petra.core.objective import Constraint
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Trial, TrialStatus
from petra.report import axes, history, plots
from petra.report.outcomes import failure_counts
from petra.report.study_front import StudyFront
from petra.report.tables import front_view, to_text, trials_view
from petra.search.scaling import scale
from petra.testing.studies import toy_study

# ---- what the figures show -----------------------------------------------------------------------


def test_progress_is_the_hypervolume_of_what_had_finished(study: Path) -> None:
    front = StudyFront.load(study)
    assert front.baseline is not None
    scaling = scale(front.objectives, front.constraints, front.baseline)
    reached = history.hypervolume_reached(front)
    volumes = [volume for _, volume in reached]
    assert volumes == sorted(volumes)
    for count in (1, 7, len(reached)):
        assert volumes[count - 1] == pytest.approx(
            scaling.hypervolume([t for t, _ in reached[:count]]), rel=1e-12
        )


def test_moves_count_every_trial_once_per_move_and_successes_by_hypervolume(study: Path) -> None:
    front = StudyFront.load(study)
    expected = Counter(move for t in front.trials if t.number for move in t.origin.moves)
    counts = history.move_counts(history.hypervolume_reached(front))
    assert {move: proposed for move, proposed, _ in counts} == expected
    volumes = [v for _, v in history.hypervolume_reached(front)]
    rises = int((np.diff(volumes) > 0).sum())
    single = sum(succeeded for move, _, succeeded in counts)
    assert rises <= single <= sum(expected.values())
    assert all(0 <= succeeded <= proposed for _, proposed, succeeded in counts)


def test_the_front_figure_shows_all_measured_trials_and_the_bound(study: Path) -> None:
    front = StudyFront.load(study)
    quality, latency = front.objectives[:2]
    figure = plots.pair_figure(front, latency, quality)
    drawn = {
        (x, y)
        for trace in figure.data
        if trace.mode == "markers"
        for x, y in zip(trace.x, trace.y, strict=True)
    }
    wanted = {
        (t.metrics["latency_ratio"].mean, t.metrics["quality"].mean)
        for t in front.trials
        if t.measured
    }
    assert drawn == wanted
    assert front.baseline is not None
    bound = Constraint.parse("quality >= baseline - 0.2").bound(front.baseline.metrics)
    assert any(shape.y0 == bound == shape.y1 for shape in figure.layout.shapes)
    (line,) = [trace for trace in figure.data if trace.mode == "lines"]
    steps = list(zip(line.x, line.y, strict=True))
    assert steps == sorted(steps), "along the staircase less speed buys more quality"


def test_one_objective_shows_the_best_so_far(tmp_path: Path) -> None:
    front = StudyFront.load(toy_study(tmp_path, trials=15, objectives=("size",)))
    (line,) = [t for t in front.plot().data if t.mode == "lines"]
    sizes = [t.metrics["size_bytes"].mean for t in front.trials if t.status is TrialStatus.COMPLETE]
    assert list(line.y) == list(np.minimum.accumulate(sizes))


def test_failures_are_counted_by_stage_and_reason() -> None:
    trials = [
        Trial(
            n,
            Pipeline((StageSpec("x", {"n": n}),)),
            TrialStatus.FAILED,
            failure=Failure(stage, kind, "why"),
        )
        for n, (stage, kind) in enumerate(
            [("prune", "A"), ("prune", "B"), ("prune", "A"), ("export", "A")], 1
        )
    ]
    counts = {key: (count, first.number) for key, count, first in failure_counts(trials)}
    assert counts == {("prune", "A"): (2, 1), ("prune", "B"): (1, 2), ("export", "A"): (1, 4)}


# ---- terminal tables -----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_tables_fit_the_terminal_and_keep_what_matters(study: Path, width: int) -> None:
    front = StudyFront.load(study)
    text = to_text(front_view(front, width=width), width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "accuracy" in lines[0]
    assert "ratio" in lines[0]
    assert "size" in lines[0]
    for member in front.members:
        assert any(line.split()[:1] == [str(member.number)] and "x" in line for line in lines)
    every = to_text(trials_view(front, width=width), width=width)
    assert max(map(len, every.splitlines())) <= width
    assert (
        sum(
            line.lstrip("* ").split()[:1] == [str(len(front.trials) - 1)]
            for line in every.splitlines()
        )
        == 1
    )


def test_ruined_trials_do_not_squeeze_the_front_out_of_sight(tmp_path: Path) -> None:
    front = StudyFront.load(
        toy_study(tmp_path, trials=40, constraints=("quality >= baseline - 0.05",))
    )
    quality, latency, size = front.objectives
    low, high = axes.frame(front, quality)
    assert front.baseline is not None
    assert low < front.baseline.metrics["quality"].mean - 0.05 < high
    assert high > max(
        sum((t.metrics["quality"].mean, t.metrics["quality"].stderr)) for t in front.members
    )
    inside = [t for t in front.trials if t.status is TrialStatus.COMPLETE]
    assert all(low <= t.metrics["quality"].mean <= high for t in inside)
    ruined = [t for t in front.trials if t.measured and t.metrics["quality"].mean < 0.6]
    assert ruined
    assert all(t.metrics["quality"].mean < low for t in ruined)
    assert axes.outside(front, size, quality) >= len(ruined)
    assert list(plots.pair_figure(front, latency, quality).layout.yaxis.range) == [low, high]
