"""petra compare: what is said of two studies holds by their own records."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_calls import petra, refused

from petra.config.sections import WorkloadConfig
from petra.core.measurement import Measurement
from petra.core.metric import task_metric
from petra.core.objective import Objective
from petra.core.target import Target
from petra.core.trial import Trial
from petra.front import figures
from petra.moo.hypervolume import hypervolume
from petra.report import comparison_tables
from petra.report.comparable import axes_of
from petra.report.comparison import Comparison, compare, volume_at
from petra.report.record import StudyRecord
from petra.search.scaling import scale
from petra.testing import studies
from petra.testing.studies import toy_study


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A short search and a longer one, of other seeds, the second within a constraint."""
    place = tmp_path_factory.mktemp("pair")
    first = toy_study(place / "first", trials=10)
    second = toy_study(place / "second", trials=40, seed=1, constraints=["quality >= 0.5"])
    return first, second


def judged(trial: Trial, metric: str) -> Measurement:
    return trial.test[metric] if metric == "quality" else figures(trial)[metric]


def better(one: Trial, other: Trial, axis: Objective) -> tuple[bool, bool]:
    """Whether `other` is better than `one`, and whether that is beyond the errors."""
    a, b = judged(one, axis.metric), judged(other, axis.metric)
    gain = b.mean - a.mean if axis.maximize else a.mean - b.mean
    return gain > 0, gain > 1.96 * math.sqrt(a.stderr**2 + b.stderr**2)


def test_beaten_is_certainly_worse_somewhere_and_better_nowhere(pair: tuple[Path, Path]) -> None:
    found = compare(pair)
    assert [side.name for side in found.sides] == ["first", "second"]
    assert found.tested
    axes = found.axes.objectives
    assert [a.metric for a in axes] == ["quality", "latency_ratio", "size_bytes"]
    assert found.axes.left_out == {}
    said = 0
    for one in found.members:
        (other,) = (s for s in found.sides if s.name != one.study)
        for rival in other.front.members:
            sure = any(better(one.trial, rival, a)[1] for a in axes)
            hurt = any(better(rival, one.trial, a)[1] for a in axes)
            worse = any(better(rival, one.trial, a)[0] for a in axes)
            named = [r.number for r in one.beaten_by if r.study == other.name]
            assert (rival.number in named) == (sure and not worse)
            doubtful = [r.number for r in one.no_better_than if r.study == other.name]
            assert (rival.number in doubtful) == (sure and worse and not hurt)
            said += rival.number in named
    assert said, "the longer search beats nothing: a toy that tests nothing"


def test_hypervolume_is_that_of_all_models_below_one_point(pair: tuple[Path, Path]) -> None:
    found = compare(pair)
    assert found.shared == ()  # a constraint of one of them does not count
    base = found.sides[0].baseline
    scaling = scale(found.axes.objectives, (), base)
    for side in found.sides:
        curve = found.curves[side.name]
        points = [scaling.costs(t) for t in side.record.trials if scaling.usable(t)]
        expected = hypervolume(np.array(points), scaling.reference)
        assert volume_at(curve) == pytest.approx(expected)
        volumes = [step.volume for step in curve]
        assert volumes == sorted(volumes)
        half = [t for t in side.record.trials if t.finished_at <= 7.5 and scaling.usable(t)]
        expected = hypervolume(np.array([scaling.costs(t) for t in half]), scaling.reference)
        assert volume_at(curve, seconds=7.5) == pytest.approx(expected)
    quality = base.metrics["quality"].mean
    assert found.reference["quality"] == pytest.approx(quality * 0.5)
    seconds, results = comparison_tables.checkpoints(found)
    assert results == [5, 10]
    assert seconds[-1] == found.curves["first"][-1].seconds


def test_what_differs_is_listed_and_nothing_else(pair: tuple[Path, Path]) -> None:
    data = json.loads(petra("compare", *pair, "--json").output)
    differing = data["differences"]
    assert differing["seed"] == {"first": "0", "second": "1"}
    assert differing["budget.trials"] == {"first": "10", "second": "40"}
    assert differing["constraints"] == {"first": "[]", "second": '["quality >= 0.5"]'}
    assert set(differing) == {"seed", "budget.trials", "constraints"}
    assert data["split"] == "test"
    assert data["studies"]["second"]["directory"] == str(pair[1])
    found = compare(pair)
    for side in found.sides:
        given = data["studies"][side.name]
        assert [m["number"] for m in given["front"]] == [t.number for t in side.front.members]
        assert given["hypervolume"] == pytest.approx(volume_at(found.curves[side.name]))


def test_the_terminal_shows_all_members_and_says_how_many_are_beaten(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    result = petra("compare", *pair)
    assert result.exit_code == 0
    flat = " ".join(result.output.split())
    found = compare(pair)
    beaten = sum(bool(m.beaten_by) for m in found.of("first"))
    assert f"first: of {len(found.of('first'))} models, {beaten} beaten" in flat
    for heading in ("What differs", "Fronts", "Progress", "Failures"):
        assert heading in result.output
    assert "at 10 trials" in flat
    assert "with first's untouched model as the unit" in flat


def metrics_of(found: Comparison) -> list[str]:
    return [a.metric for a in found.axes.objectives]


def test_what_another_machine_timed_is_left_out(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = studies.describe_host()
    other = here | {"id": "0badcafe", "cpu": "Another CPU"}
    monkeypatch.setattr(studies, "describe_host", lambda: other)
    there = toy_study(tmp_path / "there", trials=6)
    found = compare([pair[0], there])
    assert metrics_of(found) == ["quality", "size_bytes"]
    said = " ".join(petra("compare", pair[0], there).output.split())
    assert "latency_ratio is not compared: timed on other machines" in said
    assert "Another CPU" in said


def records(pair: tuple[Path, Path]) -> tuple[StudyRecord, StudyRecord]:
    one = StudyRecord.load(pair[0])
    return one, replace(one)


def configured(record: StudyRecord, **changed: object) -> StudyRecord:
    return replace(record, config=record.config.model_copy(update=changed))


def test_only_what_means_the_same_is_an_axis(pair: tuple[Path, Path]) -> None:
    one, other = records(pair)
    everything = ["quality", "latency_ratio", "size_bytes"]
    assert [o.metric for o in axes_of([one, other]).objectives] == everything
    versions = dict(one.host["versions"]) | {"onnxruntime": "0.1"}  # type: ignore[call-overload]
    f1 = (task_metric("quality", maximize=True, title="f1"),)
    for changed, name, why in (
        (replace(other, host={**one.host, "versions": versions}), "latency_ratio", "onnxruntime"),
        (configured(other, target=Target(threads=2)), "latency_ratio", "2 thread(s)"),
        (configured(other, objectives=("quality", "size_bytes")), "latency_ratio", "of all"),
        (configured(other, workload=WorkloadConfig(name="etth1")), "quality", "digits and etth1"),
        (replace(other, task=f1), "quality", "accuracy and f1"),
    ):
        axes = axes_of([one, changed])
        assert [o.metric for o in axes.objectives] == [m for m in everything if m != name]
        assert why in axes.left_out[name]


def test_of_other_models_milliseconds_are_compared(pair: tuple[Path, Path]) -> None:
    one, other = records(pair)
    wider = {**one.leading[0].metrics, "macs": Measurement(1e9)}
    base = replace(one.leading[0], metrics=wider)
    axes = axes_of([one, replace(other, leading=[base, *one.leading[1:]])])
    assert [o.metric for o in axes.objectives] == ["quality", "latency_ms", "size_bytes"]
    assert "the untouched models differ" in axes.notes[0]


def test_what_is_not_known_of_the_data_is_said(pair: tuple[Path, Path]) -> None:
    one, other = (configured(record, workload=None) for record in records(pair))
    assert "live Python objects" in axes_of([one, other]).notes[0]
    few = configured(one, workload=WorkloadConfig(name="digits", args={"epochs": 1}))
    assert "other arguments" in axes_of([records(pair)[0], few]).notes[0]


def test_three_studies_and_unconfirmed_ones(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    bare = toy_study(tmp_path / "first", trials=6, confirm=False)
    found = compare([*pair, bare])
    assert not found.tested
    assert len({side.name for side in found.sides}) == 3
    assert found.sides[2].name.endswith("/first")  # told from the other one
    result = petra("compare", *pair, bare, "--json")
    assert json.loads(result.output)["split"] == "validation"


def test_the_page_is_whole_and_asks_nothing_of_any_host(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "compare.html"
    result = petra("compare", *pair, "--out", out, "--json")
    assert result.exit_code == 0
    assert f"made the directory {out.parent}" in result.stderr
    page = out.read_text()
    body = page[page.index("<body>") : page.index("</main>")]
    assert body.count("data-figure=") == 5  # three pairs of objectives, two of hypervolume
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", body)
    for heading in ("What differs", "Fronts", "Progress and failures"):
        assert f"<h2>{heading}</h2>" in body
    assert "accuracy (test) (more is better)" in body  # the axes say which split the points are of
    assert "accuracy, validation" not in body


def test_mistakes_are_answered(pair: tuple[Path, Path], tmp_path: Path) -> None:
    refused(petra("compare", pair[0]), "1 study is given", "petra compare runs/first runs/second")
    refused(petra("compare", *pair, pair[0]), "is given twice")
    refused(petra("compare", pair[0], tmp_path), "there is no study here")
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(petra("compare", *pair, "--out", folder), "cannot write", "another --out")
