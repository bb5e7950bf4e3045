"""The end of a study: members built again with other seeds, and compared with one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from petra.core.errors import StageRefused
from petra.core.measurement import Measurement
from petra.core.trial import Trial
from petra.report.html import write_report
from petra.report.plain import front_data
from petra.report.study_front import StudyFront
from petra.testing.recorded import RecordedExecutor
from test_study import study

FEW = {"trials": 12, "confirm": 3}


class Repeating(RecordedExecutor):
    """Remembers what it was asked to build again, and fails when it is told to."""

    def __init__(self, stop_after: int = 1000, refused: int = 0) -> None:
        super().__init__()
        self.stop_after, self.refused = stop_after, refused
        self.asked: list[tuple[int, int]] = []

    def repeat(self, trial: Trial, seed: int) -> dict[str, Measurement]:
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append((trial.number, seed))
        if len(self.asked) == self.refused:
            raise StageRefused("not with this seed")
        return super().repeat(trial, seed)


def test_every_member_is_built_with_other_seeds_and_none_twice(tmp_path: Path) -> None:
    straight = Repeating()
    whole = study(tmp_path / "whole", budget=FEW).run(executor=lambda _: straight).front
    compressed = {t.number for t in whole.members if t.number}
    assert {number for number, _ in straight.asked} == compressed
    assert len(set(straight.asked)) == 3 * len(compressed)

    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "cut", budget=FEW).run(executor=lambda _: Repeating(stop_after=4))
    rest = Repeating()
    again = study(tmp_path / "cut", budget=FEW).run(executor=lambda _: rest).front
    assert rest.asked == straight.asked[4:]
    assert again.seeds == whole.seeds
    done = Repeating()
    study(tmp_path / "cut", budget=FEW).run(executor=lambda _: done)
    assert done.asked == []


def test_what_seeds_make_of_a_member_is_shown_everywhere(tmp_path: Path) -> None:
    front = study(tmp_path, budget=FEW).run(executor=lambda _: Repeating()).front
    trial = next(t for t in front.members if t.number)
    several = front.over_seeds(trial)
    assert several is not None
    own = [trial.test["quality"].mean, *front.seeds[trial.number]]
    assert (several.n, several.mean) == (4, pytest.approx(sum(own) / 4))
    line = f"{trial.number}: built with 4 seeds"
    assert line in str(front)
    assert line in write_report(tmp_path).read_text()
    assert front_data(StudyFront.load(tmp_path))["other_seeds"][str(trial.number)] == own[1:]


def test_a_seed_with_which_a_member_fails_does_not_count(tmp_path: Path) -> None:
    front = study(tmp_path, budget=FEW).run(executor=lambda _: Repeating(refused=2)).front
    first = next(t.number for t in front.members if t.number)
    assert len(front.seeds[first]) == 2
    assert all(len(s) == 3 for n, s in front.seeds.items() if n != first)


def test_members_that_are_no_better_than_cheaper_ones_are_marked(tmp_path: Path) -> None:
    class Alike(RecordedExecutor):
        def difference(self, ours: Trial, theirs: Trial) -> Measurement:
            return Measurement(0.001, 0.01, 100)

    front = study(tmp_path, budget={"trials": 40}).run(executor=lambda _: Alike()).front
    assert front.no_better
    one, other = next(iter(front.no_better.items()))
    sizes = {t.number: t.metrics["size_bytes"].mean for t in (*front.members,)}
    assert sizes[other] < sizes[one] or len(front.objectives) > 2
    assert f"{one}: its {front.metric} cannot be told from that of {other}" in str(front)
    certain = study(tmp_path / "2", budget={"trials": 40}).run(executor=lambda _: Sure()).front
    assert certain.no_better == {}


class Sure(RecordedExecutor):
    def difference(self, ours: Trial, theirs: Trial) -> Measurement:
        return Measurement(0.001, 0.0001, 100)
