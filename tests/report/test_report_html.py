"""The report opens anywhere: no network, nothing a user named becomes markup, and every kind of
study has one.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from petra.core.errors import ConfigError, StoreError
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Origin, Trial, TrialStatus
from petra.report.html import render, write_report
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.report.tables import front_view, to_text
from petra.store.store import Store
from petra.testing.studies import toy_study

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would load, and the text of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.loads: list[str] = []
        self.tags: Counter[str] = Counter()
        self.data: dict[str, str] = {}
        self.text = ""
        self.open: list[str] = []
        self._id = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        found = dict(attrs)
        self.loads += [
            str(found[k]) for k in ("src", "href", "srcset", "action", "data") if found.get(k)
        ]
        assert not any(name.startswith("on") for name in found), "an inline event handler"
        self._id = str(found.get("id") or "") if tag == "script" else ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.data[self._id] = self.data.get(self._id, "") + data
        elif self.open and self.open[-1] != "style":
            self.text += data


def test_the_file_is_self_contained_and_complete(study: Path) -> None:
    path = write_report(study)
    assert path == study / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert all(address.startswith("#") for address in page.loads)
    assert page.tags["link"] == 0
    assert page.tags["iframe"] == 0
    assert page.open == []
    assert "default-src 'none'" in path.read_text(encoding="utf-8")[:600]
    front = StudyFront.load(study)
    for member in front.members:
        assert f"trial {member.number}: " in page.text
        for stage in member.pipeline:
            for name, value in stage.params.items():
                assert f"{name} = {value}" in page.text
    for expected in (
        "accuracy",
        "untouched model",
        "3.21 ms",
        "quality >= baseline - 0.2",
        "the budget of 50 trials",
    ):
        assert expected in page.text
    assert "workload:" in page.text
    assert page.tags["svg"] >= 4
    assert set(page.data) == {"", "trials-data"}


def test_names_and_messages_cannot_become_markup(tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)><!--"
    directory = toy_study(tmp_path, trials=6)
    failure = Failure(evil, evil, f"{evil}\nsecond line")
    extra = Pipeline((StageSpec("tune", {"loss": evil}),))
    good = next(
        t
        for t in StudyFront.load(directory).trials
        if t.status is TrialStatus.COMPLETE and t.number
    )
    with Store.open(directory, write=True) as store:
        store.add(
            Trial(
                900,
                Pipeline((StageSpec(evil),)),
                TrialStatus.FAILED,
                Origin((evil,)),
                failure=failure,
            )
        )
        store.add(
            Trial(
                902,
                Pipeline((StageSpec("tune", {"loss": f"{evil}2"}),)),
                TrialStatus.SCREENED,
                failure=Failure("screen", evil, evil),
            )
        )
        metrics = dict(good.metrics) | {"size_bytes": replace(good.metrics["size_bytes"], mean=1.0)}
        store.add(
            replace(
                good, number=901, pipeline=extra, metrics=metrics, origin=Origin((evil,)), test={}
            )
        )
        store.set_note("stop_reason", evil)
        store.set_note("task", {"metric": evil, "maximize": True})
    text = write_report(directory).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags["img"] == 0
    assert all(address.startswith("#") for address in page.loads)
    assert page.open == []
    assert evil in page.text
    body = render(StudyRecord.load(directory))
    assert "<img" not in body
    for name, data in Page(body).data.items():
        if name:
            assert "<" not in data
            json.loads(data)


@pytest.mark.parametrize(
    "objectives", [("quality",), ("latency",), ("quality", "size"), ("quality", "macs", "memory")]
)
@pytest.mark.parametrize("trials", [0, 1, 12])
def test_any_objectives_and_any_number_of_trials(
    tmp_path: Path, objectives: tuple[str, ...], trials: int
) -> None:
    directory = toy_study(tmp_path, trials=trials, objectives=objectives, confirm=trials != 1)
    body = render(StudyRecord.load(directory))
    assert "<h2>Front</h2>" in body
    assert to_text(front_view(StudyFront.load(directory), width=80), width=80)
    assert StudyFront.load(directory).plot().to_json()


def test_a_study_in_which_nothing_is_feasible(tmp_path: Path) -> None:
    directory = toy_study(tmp_path, trials=10, constraints=("quality >= 0.999",))
    body = render(StudyRecord.load(directory))
    assert "No model to ship" in body
    assert "violate quality" in body


def test_a_study_that_was_killed_before_its_baseline(tmp_path: Path) -> None:
    directory = toy_study(tmp_path / "other", trials=0)
    with Store.open(directory, write=False) as store:
        config, host = store.config, store.host
    Store.create(tmp_path / "killed", config, host).close()
    body = render(StudyRecord.load(tmp_path / "killed"))
    assert "has not been measured" in body
    assert "The search has not ended yet" in body


def test_no_study_and_no_place_are_messages(study: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        write_report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_report(study, tmp_path / "file" / "report.html")
