"""`petra explain`, `petra.explain`, `Member.explain` and the report's section, on a study."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from explained_models import float_file
from typer.testing import CliRunner, Result

import petra
from petra.cli.main import app
from petra.core.errors import ArtifactError, ConfigError
from petra.core.profile import FileContents, FileLayer, Profile, Profiled, Ran
from petra.core.text import json_text
from petra.explaining import measuring
from petra.explaining.measuring import artifact_of, kept_profile
from petra.report import explained
from petra.report.html_profile import profile_section
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.store.layout import StudyPaths
from petra.testing.studies import toy_study

DOCUMENT = Path(__file__).parents[2] / "docs" / "explain.md"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_study(tmp_path_factory.mktemp("study"), trials=8)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_study_is_explained_kept_and_shown_in_the_report(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = StudyFront.load(study).pick("smallest").number
    section = profile_section(StudyRecord.load(study))
    assert f"petra explain {study} {number}" in section
    result = run(study, "smallest", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["subject"].startswith(f"trial {number}:")
    assert [row["kind"] for row in found["layers"]] == ["MatMul", "MatMul"]
    assert sum(row["share"] for row in found["operators"]) == pytest.approx(1)
    assert found["ratio"] > 0
    assert sum(row["ms"] for row in found["operators"]) <= 1.001 * found["untraced_ms"]

    def unexpected(*args: object, **options: object) -> Profiled:
        raise AssertionError("it was kept")

    monkeypatch.setattr(measuring, "profile_file", unexpected)
    again = StudyFront.load(study).pick(number).explain()
    assert again.total_ms == pytest.approx(found["total_ms"])
    members = StudyFront.load(study).members
    monkeypatch.setattr(explained, "profile_trial", lambda *_, **__: kept_profile(study, trial))
    trial = next(t for t in members if t.number == number)
    everyone = json.loads(run(study, "front", "--json").stdout)
    assert [one["subject"].split(":")[0] for one in everyone] == [
        f"trial {t.number}" for t in members
    ]
    text = run(study, number).output
    for title in ("Time by operator", "Layers that take longest", "What it cost"):
        assert title in text
    section = profile_section(StudyRecord.load(study))
    assert f"id=explain-{number}" in section
    assert "Time by operator in one call" in section
    assert "matrix products" in section


def profiled(**changes: object) -> Profiled:
    layer = FileLayer(0, "Conv<b>", "x\x1b[31m<script>alert(1)</script>", (4, 4))
    mine = Profile(
        (Ran("Conv<i>", 0.1, "float32", 0, 0),), FileContents((layer,)), 10, "mean", 1.0, 0.2
    )
    found = Profiled("onnxruntime", "1", "here", (), 1, 1, mine, None, 0.15)
    return replace(found, **changes)  # type: ignore[arg-type]


def keep(study: Path, number: int, text: str) -> None:
    place = StudyPaths(study).profile(number)
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)


def test_a_kept_profile_is_read_back_as_it_was_and_nothing_else_is(tmp_path: Path) -> None:
    study = toy_study(tmp_path / "s", trials=4)
    trial = StudyFront.load(study).pick("smallest").trial
    digest = measuring.sha256(artifact_of(study, trial))
    kept = profiled(digest=digest)
    good = json_text(asdict(kept))
    keep(study, trial.number, good)
    assert kept_profile(study, trial) == kept
    section = profile_section(StudyRecord.load(study))
    assert "<script>" not in section
    assert "<i>" not in section
    assert "\x1b" not in section
    assert "&lt;script&gt;" in section
    for bad in (
        json_text(asdict(profiled(digest="0" * 64))),  # of another file
        good.replace("0.15", "NaN"),
        good.replace("0.15", '"0.15"'),
        good.replace("0.15", "0"),
        good[:-10],
        "[]",
    ):
        keep(study, trial.number, bad)
        assert kept_profile(study, trial) is None
    StudyPaths(study).profile(trial.number).unlink()
    StudyPaths(study).profile(trial.number).symlink_to(tmp_path / "elsewhere.json")
    (tmp_path / "elsewhere.json").write_text(good)
    assert kept_profile(study, trial) is None


def test_a_file_and_a_bundle_are_explained_by_themselves(study: Path, tmp_path: Path) -> None:
    file = float_file()
    found = petra.explain(file, against=file)
    assert found.subject == str(file)
    assert found.ratio == pytest.approx(1, abs=0.5)
    assert [row.base_ms is not None for row in found.layers] == [True] * 4
    bundle = StudyFront.load(study).pick("smallest").export(tmp_path / "bundle")
    assert petra.explain(bundle.parent).subject == str(bundle)


def test_what_cannot_be_explained_says_so(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no trial 999"):
        petra.explain(study, 999)
    with pytest.raises(ConfigError, match="pick: got 'fast'"):
        petra.explain(study, "fast")
    with pytest.raises(ConfigError, match="has its own untouched model"):
        petra.explain(study, threads=2)
    with pytest.raises(ArtifactError, match="neither a study nor a bundle"):
        petra.explain(tmp_path)
    with pytest.raises(ArtifactError, match="no such file"):
        petra.explain(tmp_path / "none.onnx")
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no runtime is known for \.bin"):
        petra.explain(tmp_path / "m.bin")
    refused = run(tmp_path / "none.onnx")
    assert refused.exit_code == 2
    failed = [t for t in StudyRecord.load(study).trials if not t.artifact]
    if failed:
        with pytest.raises(ArtifactError, match="has no model file"):
            petra.explain(study, failed[0].number)


def test_the_snippet_of_the_document_runs(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "petra-demo").symlink_to(study)
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL):
        exec(code, {})  # noqa: S102 - the repository's own
    assert "Time by operator" in capsys.readouterr().out
