"""The commands as a person meets them: output, exit codes, one clear message for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner, Result

from petra.cli.main import app
from petra.methods.table import STAGES
from petra.report.study_front import StudyFront
from petra.testing.studies import toy_study, write_onnx


def petra(*arguments: object) -> Result:
    """Run a command in this process. A bug shows as itself."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def shell(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "petra.cli.main", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_study(tmp_path_factory.mktemp("study"), trials=25)


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


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "run",
        "resume",
        "show",
        "report",
        "export",
        "verify",
        "bench",
        "package",
        "methods",
        "doctor",
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = petra(command, "--help")
    assert result.exit_code == 0
    assert f"petra {command}" in result.output
    assert "--json" in result.output
    assert f" {command} " in petra("--help").output


def test_version() -> None:
    assert petra("--version").output.startswith("petra ")


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
    assert json.loads(petra("report", study, "--out", out, "--json").output) == {"report": str(out)}
    assert out.is_file()


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
    assert data == {
        "trial": number,
        "file": str(tmp_path / "x" / "model.onnx"),
        "picked": str(number),
    }
    assert petra("export", study, "--to", tmp_path / "knee.onnx").exit_code == 0
    assert (tmp_path / "knee.MODEL_CARD.md").is_file()


# ---- mistakes ------------------------------------------------------------------------------------


def refused(result: Result | subprocess.CompletedProcess[str], *said: str) -> None:
    code = result.exit_code if isinstance(result, Result) else result.returncode
    assert code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for text in said:
        assert text in result.stderr


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        (
            "workload: digits\nobjectivs: [quality]\n",
            ["objectivs: unknown key", "did you mean 'objectives'"],
        ),
        (
            "workload: digits\nobjectives: [latncy]\n",
            ["unknown metric 'latncy'", "did you mean 'latency'"],
        ),
        ("workload: digits\nconstraints: ['size <= 3 parsecs']\n", ["not given in 'parsecs'"]),
        (
            "workload: digits\nconstraints: ['quality >= 0.9', 'quality <= 0.8']\n",
            ["no value of quality is both"],
        ),
        ("workload: digits\nbudget: {time: soon}\n", ["budget.time", "30 min"]),
        ("- a list\n", ["a study file is a mapping"]),
        ("workload: [unclosed\n", ["not valid YAML"]),
        ("seed: 1\n", ["neither workload nor model and task"]),
    ],
)
def test_a_bad_study_file_is_one_message(tmp_path: Path, yaml: str, said: list[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        yaml + f"workdir: {tmp_path / 'out'}\n"
        if not yaml.startswith(("-", "workload: ["))
        else yaml
    )
    refused(petra("run", path), *said)
    assert not (tmp_path / "out").exists()


def test_a_misspelt_method_is_corrected_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    path = tmp_path / "study.yaml"
    source = f"model: parts:model\ntask: parts:task\nworkdir: {tmp_path / 'out'}\n"
    path.write_text(source + "space: {stages: {quantise.static: {}}}\n")
    refused(shell("run", path), "space.stages.quantise.static", "did you mean 'quantize.static'")
    assert not (tmp_path / "out").exists()


PARTS = """
import torch
from torch import nn
import petra

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def task():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long()
    return petra.classification((x[:20], y[:20]), (x[20:40], y[20:40]), (x[40:], y[40:]))
"""


def test_missing_things_are_named(tmp_path: Path) -> None:
    refused(petra("run", tmp_path / "no.yaml"), "no.yaml: no such file")
    for command in ("show", "report", "export", "resume"):
        refused(petra(command, tmp_path), "there is no study here")
        refused(petra(command, tmp_path / "nowhere"), "there is no study here")
    refused(petra("verify", tmp_path / "no.onnx"), "no such file")
    refused(petra("bench", tmp_path / "no.onnx"), "no such file")


def test_a_directory_with_something_else_in_it_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database at all")
    refused(petra("show", tmp_path), "not a study's database")


def test_wrong_choices_are_explained(study: Path, tmp_path: Path) -> None:
    refused(petra("export", study, "--pick", "kne"), "did you mean 'knee'")
    refused(petra("export", study, "--pick", "999"), "there is no trial 999", "on the front")
    refused(
        petra("export", study, "--format", "pt2"), "was measured as .onnx", "target.runtime: torch"
    )
    refused(petra("methods", "tun"), "unknown stage 'tun'", "did you mean 'tune'")
    refused(petra("resume", study, "--trials", "many"), "--trials: got 'many'")
    refused(petra("resume", study, "--time", "soon"), "--time", "30 min")
    (tmp_path / "model.bin").write_bytes(b"x")
    refused(petra("verify", tmp_path / "model.bin"), "no runtime is known for .bin")


def test_an_empty_front_cannot_be_exported(tmp_path: Path) -> None:
    directory = toy_study(tmp_path, trials=8, constraints=("quality >= 0.999",))
    refused(petra("export", directory), "the front is empty", "violate quality >= 0.999")
    assert "The front is empty" in petra("show", directory).output


def test_mistakes_on_the_command_line_itself_exit_with_2(study: Path) -> None:
    assert petra("sho").exit_code == 2
    assert petra("show", study, "--everything").exit_code == 2
    assert petra("bench", "x.onnx", "--threads", "0").exit_code == 2


def test_a_bug_keeps_its_traceback(study: Path) -> None:
    code = (
        "import petra.report.study_front as f\n"
        "def bug(directory): raise ZeroDivisionError('boom')\n"
        "f.StudyFront.load = bug\n"
        "from petra.cli.main import app\n"
        f"app(['show', {str(study)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: boom" in done.stderr


# ---- methods and doctor --------------------------------------------------------------------------


def test_methods_come_from_the_table_and_the_cards() -> None:
    listed = json.loads(petra("methods", "--json").output)
    assert [m["name"] for m in listed] == list(STAGES.names())
    text = petra("methods").output
    for name in STAGES.names():
        assert name in text
        card = STAGES.get(name).card()
        one = json.loads(petra("methods", name, "--json").output)
        assert [p["name"] for p in one["parameters"]] == [p.name for p in card.parameters]
        assert one["parameters"][0]["default"] == card.parameters[0].default
        assert one["doc"].startswith(one["summary"][:20])
        shown = petra("methods", name).output
        assert all(p.name[:8] in shown for p in card.parameters)


def test_doctor_names_the_runtimes_and_warns_of_a_machine_without_int8() -> None:
    from petra.cli.doctor import warnings

    found = json.loads(petra("doctor", "--json").output)
    assert found["runtimes"]["onnxruntime"]
    assert found["cores"] >= 1
    bare = found | {
        "instruction_sets": {"AVX2": True},
        "load": 0.0,
        "memory_free_gb": 64,
        "fast_bf16": True,
    }
    assert [w.split(":")[0] for w in warnings(bare)] == ["no integer dot-product instructions"]
    good = bare | {"instruction_sets": {"AVX-512 VNNI": True}}
    assert warnings(good) == []
    assert (
        len(
            warnings(good | {"load": 1.0 * found["cores"], "memory_free_gb": 1, "fast_bf16": False})
        )
        == 3
    )
    assert "onnxruntime" in petra("doctor").output


# ---- model files ---------------------------------------------------------------------------------


def test_verify_accepts_what_export_wrote(study: Path, tmp_path: Path) -> None:
    path = StudyFront.load(study).pick("knee").export(tmp_path)
    result = petra("verify", path)
    assert result.exit_code == 0
    for text in (
        "the file that metrics.json describes",
        "float32 (batch, 8)",
        "batch 5: finite",
        "without torch",
    ):
        assert text in result.output
    data = json.loads(petra("verify", path, "--json").output)
    assert data["torch_loaded"] is False
    assert data["operators"]["stored"] == {"MatMul": 2, "Relu": 1}
    assert data["operators"]["compute"] == 2
    assert data["operators"]["integer"] == 0


def test_verify_refuses_a_file_that_is_not_the_measured_one(study: Path, tmp_path: Path) -> None:
    path = StudyFront.load(study).pick("knee").export(tmp_path)
    write_onnx(path, hidden=5, seed=99)
    refused(petra("verify", path), "not the file that was measured")
    path.unlink()
    write_onnx(tmp_path / "other.onnx", hidden=5)
    refused(petra("verify", tmp_path / "other.onnx"), "the bundle's file is missing")


def corrupted(tmp_path: Path, kind: str) -> Path:
    path = write_onnx(tmp_path / f"{kind}.onnx", hidden=6)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no model")
    else:
        model = onnx.load(path)
        model.graph.initializer[0].raw_data = b"\xff" * len(model.graph.initializer[0].raw_data)
        onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cut", "cannot load this file"),
        ("empty", "cannot load this file"),
        ("text", "cannot load this file"),
        ("nan", "NaN or infinity"),
    ],
)
def test_verify_refuses_broken_files(tmp_path: Path, kind: str, said: str) -> None:
    refused(petra("verify", corrupted(tmp_path, kind)), said)


def test_bench_measures_and_pairs(tmp_path: Path) -> None:
    small, large = (
        write_onnx(tmp_path / "s.onnx", hidden=8),
        write_onnx(tmp_path / "l.onnx", hidden=20_000),
    )
    data = json.loads(
        petra("bench", small, "--against", large, "--json", "--throughput-batch", 4).output
    )
    found = data["files"][str(small)]
    assert found["latency_ratio"]["mean"] < 0.9
    assert found["size_bytes"]["mean"] == small.stat().st_size
    alone = petra("bench", small, "--throughput-batch", 4)
    assert "latency" in alone.output
    assert "ratio" not in alone.output


def test_bench_refuses_models_of_different_interfaces(tmp_path: Path) -> None:
    one, other = (
        write_onnx(tmp_path / "a.onnx", hidden=8),
        write_onnx(tmp_path / "b.onnx", hidden=8),
    )
    model = onnx.load(other)
    model.graph.input[0].name = "x"
    model.graph.node[0].input[0] = "x"
    onnx.save(model, str(other))
    refused(petra("bench", one, "--against", other), "take different inputs")
