"""What Python shows of a study and its parts: a line in a console, a small table in a notebook."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

import petra
from petra.core.trial import Failure, Trial, TrialStatus
from petra.testing.studies import toy_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> petra.Study:
    return petra.load_study(toy_study(tmp_path_factory.mktemp("study"), trials=20))


class Tags(HTMLParser):
    """Elements that are opened, and those that are left open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen, self.open = list[str](), list[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in ("br",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_reprs_are_short_and_say_what_it_is(study: petra.Study) -> None:
    member = study.front.pick("knee")
    assert repr(study).startswith(f"Study({str(study.directory)!r}: 20 trials (")
    assert f"{len(study.front.members)} models on the front, the budget of 20" in repr(study)
    numbers = ", ".join(str(t.number) for t in study.front.members)
    assert repr(study.front) == f"StudyFront(trials on it: {numbers}; of 21)"
    assert repr(member).startswith(
        f"Member({member.number}: {member.trial.pipeline.stages[0].kind}"
    )
    assert "accuracy (test) 0." in repr(member)
    for trial in study.trials:
        assert repr(trial).startswith(f"Trial({trial.number}: ")
        assert trial.status.value in repr(trial)
        assert "untouched model" in repr(trial) or "quality" in repr(trial) or trial.failure
    for shown in (study, study.front, member, *study.trials):
        assert len(repr(shown)) < 400
        assert "\n" not in repr(shown)
        assert " object at " not in repr(shown)


def test_notebook_views_are_whole_html_without_scripts_and_colours(study: petra.Study) -> None:
    member = study.front.pick("knee")
    for shown in (study, study.front, member, *study.trials[:5]):
        html = shown._repr_html_()
        tags = Tags(html)
        assert tags.open == []
        assert "script" not in tags.seen
        assert tags.seen[:2] == ["div", "style"]
        assert "color: #" not in html
        assert "background: #" not in html
    assert str(study.directory) in study._repr_html_()
    assert f"Trial {member.number}" in member._repr_html_()


def test_what_is_not_there_is_said_and_raises_nothing(tmp_path: Path) -> None:
    gone = petra.load_study(toy_study(tmp_path / "study", trials=1))
    (tmp_path / "study" / "study.db").unlink()
    assert repr(gone).startswith("Study('")
    assert "study" in gone._repr_html_()


def test_a_failed_trial_is_escaped() -> None:
    failure = Failure("<b>", "Odd", "<script>\x1b[31m")
    trial = Trial(3, petra.Pipeline(), TrialStatus.FAILED, failure=failure)
    assert "<script>" not in trial._repr_html_()
    assert "\x1b" not in repr(trial) + trial._repr_html_()
