"""methods, doctor, verify and bench."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from cli_calls import petra, refused

from petra.methods.table import STAGES
from petra.report.study_front import StudyFront
from petra.testing.studies import write_onnx

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
    assert list(data["files"]) == [str(large), str(small)]  # the reference first
    reference = data["files"][str(large)]
    assert reference["latency_ratio"]["mean"] == pytest.approx(1, abs=0.25)
    assert reference["size_bytes"]["mean"] == large.stat().st_size
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
