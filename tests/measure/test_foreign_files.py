"""Other people's ONNX files: judged by what they declare, or refused with the reason and what to
do.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import foreign
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from petra.cli.artifact import described
from petra.cli.main import app
from petra.core.errors import PetraError
from petra.core.interface import FREE_SIZE, Interface
from petra.core.target import Target
from petra.measure.bench_main import Request, measure_file
from petra.measure.inspect_main import InspectRequest, inspect
from petra.measure.interface import interface_of
from petra.runtimes.base import InputSpec
from petra.runtimes.openvino import OpenVino

X = np.random.default_rng(0).uniform(0.5, 2.0, (6, 4)).astype(np.float32)


def petra(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, allow_pickle=True, **arrays)
    return path


@pytest.mark.parametrize("kind", foreign.FINE)
def test_what_it_declares_is_what_it_is_judged_by(tmp_path: Path, kind: str) -> None:
    make, said = foreign.FINE[kind]
    path = foreign.write(tmp_path / "m.onnx", make())
    found = inspect(InspectRequest(Target(), str(path)))
    assert said in "\n".join(described(found))
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("kind", foreign.REFUSED)
def test_a_refusal_has_the_reason_and_what_to_do(tmp_path: Path, kind: str) -> None:
    make, said = foreign.REFUSED[kind]
    path = foreign.write(tmp_path / "m.onnx", make())
    with pytest.raises(PetraError) as caught:
        inspect(InspectRequest(Target(), str(path)))
    assert re.search(said, str(caught.value), re.DOTALL), caught.value
    assert caught.value.hint
    assert "onnxruntime_src" not in str(caught.value)


@pytest.mark.skipif(not OpenVino().version(), reason="openvino is not installed")
@pytest.mark.parametrize("kind", foreign.FINE)
def test_another_runtime_says_the_same_or_why_not(tmp_path: Path, kind: str) -> None:
    make, _ = foreign.FINE[kind]
    path = foreign.write(tmp_path / "m.onnx", make())
    expected = inspect(InspectRequest(Target(), str(path)))
    try:
        found = inspect(InspectRequest(Target("openvino"), str(path)))
    except PetraError as error:
        assert re.search("OpenVINO cannot (load|run)|takes text", error.message)  # noqa: PT017
        return
    assert found["axes"] == expected["axes"]
    assert [r["batch"] for r in found["runs"]] == [r["batch"] for r in expected["runs"]]


# ---- where the batch is --------------------------------------------------------------------------


def spec(*sizes: int | str | None, name: str = "x") -> InputSpec:
    return InputSpec(
        name,
        "float32",
        tuple(size if isinstance(size, int) else None for size in sizes),
        tuple(size if isinstance(size, str) else "" for size in sizes),
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "axes", "fixed"),
    [
        ([spec("batch", 3)], [], {"x": 0}, None),
        ([spec("seq", "batch_size", 3)], [], {"x": 1}, None),
        ([spec("T", "B", 3)], [spec("T", "B", 5)], {"x": 1}, None),
        ([spec("t", "rows", 3)], [spec("rows", 5)], {"x": 1}, None),
        ([spec("t", "rows", 3)], [spec("t", "rows", 5)], {"x": 0}, None),
        ([spec(None, None, 3)], [spec(1, None, 5)], {"x": 0}, None),
        ([spec(1, "t", 3)], [spec(1, "t", 5)], {}, 1),
        ([spec(8, 3)], [spec(8, 5)], {}, 8),
        ([spec(8, 3)], [spec(1, 5)], {}, None),
        ([spec(8, 3), spec(4, 3, name="y")], [], {}, None),
        ([spec("n", "n")], [spec("n", "n")], {}, None),
        ([spec()], [spec()], {}, None),
        ([], [spec(4, 3)], {}, None),
        (
            [spec("batch", 3), spec(None, 2, name="y"), spec(7, name="z")],
            [],
            {"x": 0, "y": 0},
            None,
        ),
        ([spec("batch", 3), spec("batch_1", 2, name="y")], [], {"x": 0, "y": 0}, None),
    ],
)
def test_the_batch_is_found(
    inputs: list[InputSpec], outputs: list[InputSpec], axes: dict[str, int], fixed: int | None
) -> None:
    found = interface_of(inputs, outputs)
    assert (found.free_batch, found.fixed_batch) == (axes, fixed)
    assert [InputSpec(s.name, s.dtype, s.shape, s.names) for s in found.inputs] == inputs


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


@pytest.mark.parametrize(
    "kind",
    [
        "fixed batch of 1",
        "batch second, called n",
        "labels and maps",
        "no inputs",
        "no items",
        "bfloat16 input",
    ],
)
def test_what_is_judged_is_measured_too(tmp_path: Path, kind: str) -> None:
    path = foreign.write(tmp_path / "m.onnx", foreign.FINE[kind][0]())
    found = inspect(InspectRequest(Target(), str(path)))
    interface = Interface.from_dict(found["interface"])
    request = Request(Target(batch=2, throughput_batch=3), str(path), baseline=str(path))
    assert measure_file(request, interface, "")["latency_ms"]["mean"] > 0


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


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("past + 1", FREE_SIZE + 1),
        ("past+length", 2 * FREE_SIZE),
        ("2 * n - 1", 2 * FREE_SIZE - 1),
        ("length", FREE_SIZE),
        ("", FREE_SIZE),
        ("n - n", FREE_SIZE),
        ("*".join(["99999999"] * 20), FREE_SIZE),
        ("9 ** 9 ** 9", FREE_SIZE),
        ("-" * 150 + "1", FREE_SIZE),
        ("__import__('os')", FREE_SIZE),
        ("unk.1", FREE_SIZE),
    ],
)
def test_sizes_that_follow_from_others_are_reckoned(name: str, size: int) -> None:
    assert interface_of([spec("batch", name)]).shapes(2) == {"x": (2, size)}
