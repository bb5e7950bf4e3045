"""Inputs that people give for ONNX files: measured with, or refused with the reason."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import foreign
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from petra.cli.main import app
from petra.core.errors import PetraError
from petra.core.interface import Interface
from petra.core.target import Target
from petra.measure.bench_main import Request, measure_file
from petra.measure.inspect_main import InspectRequest, inspect

X = np.random.default_rng(0).uniform(0.5, 2.0, (6, 4)).astype(np.float32)


def petra(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, allow_pickle=True, **arrays)
    return path


# ---- the commands --------------------------------------------------------------------------------


def test_verify_and_bench_of_a_fixed_batch(tmp_path: Path) -> None:
    path = foreign.write(tmp_path / "m.onnx", foreign.FINE["fixed batch of 8"][0]())
    shown = petra("verify", path).output
    assert (
        "batch 8: finite outputs y (8, 3)\nnote: the file takes 8 item(s) in every call, and no"
        " other" in shown
    )
    assert "batch 5" not in shown
    given = npz(tmp_path / "x.npz", x=np.ones((8, 4), np.float32))
    benched = petra("bench", path, "--inputs", given)
    assert f"latency at batch 8, throughput at batch 8; inputs from {given}" in benched.output
    refused = petra("bench", path, "--batch", 2)
    assert refused.exit_code == 2
    assert "takes batches of 8 and no others, not 2" in refused.stderr


def test_given_inputs_do_what_random_ones_cannot(tmp_path: Path) -> None:
    positive = foreign.write(tmp_path / "p.onnx", foreign.REFUSED["positive numbers alone"][0]())
    given = npz(tmp_path / "x.npz", x=X)
    found = json.loads(petra("verify", positive, "--inputs", given, "--json").output)
    assert [run["batch"] for run in found["runs"]] == [1, 6]
    interface = Interface.from_dict(found["interface"])
    request = Request(Target(batch=2, throughput_batch=8), str(positive), baseline=str(positive))
    assert measure_file(request, interface, str(given))["throughput"]["mean"] > 0
    refused = petra("verify", positive, "--inputs", npz(tmp_path / "neg.npz", x=-X))
    assert refused.exit_code == 2
    assert "NaN at 3 of 3 places, for the given inputs" in refused.stderr


# ---- given inputs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "arrays"),
    [
        ("text", {"x": np.array([["a", "bc", "", "ü"]])}),
        ("indices of one row", {"i": np.zeros(3, np.int64)}),
        ("positive numbers alone", {"x": X.astype(">f4")}),
        ("positive numbers alone", {"x": np.asfortranarray(X)}),
    ],
)
def test_given_inputs_are_accepted(
    tmp_path: Path, kind: str, arrays: dict[str, np.ndarray]
) -> None:
    path = foreign.write(tmp_path / "m.onnx", foreign.REFUSED[kind][0]())
    inspect(InspectRequest(Target(), str(path), inputs=str(npz(tmp_path / "x.npz", **arrays))))


@pytest.mark.parametrize(
    "kind", ["scalar input", "bfloat16 input", "fixed batch of 8", "no inputs", "optional input"]
)
def test_given_inputs_fit_what_is_declared(tmp_path: Path, kind: str) -> None:
    path = foreign.write(tmp_path / "m.onnx", foreign.FINE[kind][0]())
    given = {"x": np.ones((8, 4), np.float32)} if kind != "no inputs" else {}
    given |= {"s": np.array(2.0, np.float32)} if kind == "scalar input" else {}
    inspect(InspectRequest(Target(), str(path), inputs=str(npz(tmp_path / "x.npz", **given))))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, r"arrays for \[\], the model takes \['x'\]"),
        ({"x": X, "z": X}, r"arrays for \['x', 'z'\]"),
        ({"../x": X}, r"'\.\./x'"),
        ({"x": X.astype(np.float64)}, "is float64, the input is float32.*astype\\('float32'\\)"),
        ({"x": X[:, :3]}, r"has shape \(6, 3\), the input \(n, 4\)"),
        ({"x": X[0]}, r"has shape \(4,\)"),
        ({"x": X[:0]}, "has no items"),
        ({"x": np.array([["a"] * 4])}, "is <U1, the input is float32"),
        ({"x": np.array([{1: 2}], object)}, "Python objects.*never unpickled"),
        ({"x": np.zeros(3, [("a", "f4")])}, "not numbers or text"),
    ],
)
def test_inputs_that_do_not_fit_are_explained(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    path = foreign.write(tmp_path / "m.onnx", foreign.model([foreign.product()]))
    with pytest.raises(PetraError) as caught:
        inspect(InspectRequest(Target(), str(path), inputs=str(npz(tmp_path / "x.npz", **arrays))))
    assert re.search(said, str(caught.value), re.DOTALL), caught.value
    assert caught.value.hint


def test_equal_names_need_equal_sizes(tmp_path: Path) -> None:
    path = foreign.write(tmp_path / "m.onnx", foreign.FINE["one name in several places"][0]())
    a, b = np.ones((2, 3, 5), np.float32), np.ones((2, 6, 3), np.float32)
    with pytest.raises(PetraError, match="k is 5 in 'a' and 6 in 'b'"):
        inspect(InspectRequest(Target(), str(path), inputs=str(npz(tmp_path / "x.npz", a=a, b=b))))
    with pytest.raises(PetraError, match="the batch is 2 in 'a' and 1 in 'b'"):
        inspect(
            InspectRequest(
                Target(), str(path), inputs=str(npz(tmp_path / "y.npz", a=a, b=b[:1, :5]))
            )
        )


def header(text: str) -> bytes:
    """An .npy file of the version that allows headers of any length, without data."""
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text.encode()


def hostile(kind: str) -> bytes:
    """The content of a member, for most kinds."""
    shape = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}\n"
    return {
        "nothing": b"",
        "no header": b"x" * 100,
        "an enormous array": header(shape % "(100000, 100000, 4)"),
        "sizes below zero": header(shape % "(-1, 4)"),
        "an endless header": header(" " * 50_000_000),
        "deep brackets": header("(" * 9_000),
        "code for a header": header("__import__('os').system('true')"),
        "data that is cut off": header(shape % "(6, 4)") + b"1234",
        "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        *(
            "nothing",
            "no header",
            "an enormous array",
            "sizes below zero",
            "an endless header",
            "deep brackets",
        ),
        *("code for a header", "data that is cut off", "a pickle"),
    ],
)
def test_hostile_members_are_one_message(tmp_path: Path, kind: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", hostile(kind))
    path = foreign.write(tmp_path / "m.onnx", foreign.model([foreign.product()]))
    with pytest.raises(PetraError) as caught:
        inspect(InspectRequest(Target(), str(path), inputs=str(tmp_path / "x.npz")))
    assert "x.npz" in caught.value.message
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x03\x04" + b"\xff" * 60, b"PK\x05\x06" + b"\0" * 18]
)
def test_what_is_no_archive_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    path = foreign.write(tmp_path / "m.onnx", foreign.model([foreign.product()]))
    with pytest.raises(PetraError, match=r"x\.npz"):
        inspect(InspectRequest(Target(), str(path), inputs=str(tmp_path / "x.npz")))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", b"2")
    path = foreign.write(tmp_path / "m.onnx", foreign.model([foreign.product()]))
    with pytest.raises(PetraError, match="holds 'x' twice"):
        inspect(InspectRequest(Target(), str(path), inputs=str(tmp_path / "x.npz")))
