"""The commands as a person meets them: output, exit codes, one clear message for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cli_calls import petra

from petra.report.study_front import StudyFront

# ---- help ----------------------------------------------------------------------------------------


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from petra.cli.main import app; print([m for m in ('torch', 'numpy', 'pandas',"
        " 'sqlalchemy', 'pydantic', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_a_study_does_not_import_torch(study: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from petra.cli.main import app; r ="
        f" CliRunner(); codes = [r.invoke(app, [c, {str(study)!r}]).exit_code for c in ('show',"
        " 'report', 'export')]; print(codes, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, 0, 0] False"


# ---- results -------------------------------------------------------------------------------------


def test_show_prints_the_front(study: Path) -> None:
    result = petra("show", study)
    assert result.exit_code == 0
    for member in StudyFront.load(study).members:
        assert f"\n{member.number:>2}  " in result.output


def test_show_json_has_all_members_with_their_measurements(study: Path) -> None:
    data = json.loads(petra("show", study, "--json").output)
    members = StudyFront.load(study).members
    assert [m["number"] for m in data["front"]] == [t.number for t in members]
    assert data["front"][0]["validation"]["quality"]["mean"] == members[0].metrics["quality"].mean
    assert {pick for m in data["front"] for pick in m["picks"]} == {
        "smallest",
        "fastest",
        "best",
        "knee",
    }
    everything = json.loads(petra("show", study, "--all", "--json").output)
    assert [t["number"] for t in everything["all"]] == list(range(26))


def test_show_all_lists_every_trial(study: Path) -> None:
    lines = petra("show", study, "--all").output.splitlines()
    shown = [line.lstrip("* ").split()[:1] for line in lines]
    assert all([str(n)] in shown for n in range(26))


def test_report_writes_where_it_is_told(study: Path, tmp_path: Path) -> None:
    assert str(study / "report.html") in petra("report", study).output
    out = tmp_path / "deep" / "r.html"
    result = petra("report", study, "--out", out, "--json")
    assert json.loads(result.stdout) == {"report": str(out)}
    assert f"made the directory {out.parent}" in result.stderr
    assert out.is_file()
    assert petra("report", study, "--out", out).stderr == ""


def test_export_by_default_makes_a_bundle_in_the_study(study: Path) -> None:
    result = petra("export", study, "--pick", "smallest")
    assert result.exit_code == 0
    assert (study / "export" / "smallest" / "MODEL_CARD.md").is_file()
    assert str(study / "export" / "smallest" / "model.onnx") in result.output


def test_export_to_a_directory_or_a_file(study: Path, tmp_path: Path) -> None:
    number = StudyFront.load(study).members[0].number
    data = json.loads(
        petra("export", study, "--pick", number, "--to", f"{tmp_path}/x/", "--json").output
    )
    assert "preprocessing is not stated" in data.pop("notes")[0]
    assert data == {
        "trial": number,
        "file": str(tmp_path / "x" / "model.onnx"),
        "picked": str(number),
    }
    assert petra("export", study, "--to", tmp_path / "knee.onnx").exit_code == 0
    assert (tmp_path / "knee.MODEL_CARD.md").is_file()
