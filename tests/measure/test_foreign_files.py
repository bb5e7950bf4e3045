"""Other people's ONNX files: judged by what they declare, or refused with the reason and what to
do.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import foreign
import pytest

from petra.cli.artifact import described
from petra.core.errors import PetraError
from petra.core.interface import FREE_SIZE, Interface
from petra.core.target import Target
from petra.measure.bench_main import Request, measure_file
from petra.measure.inspect_main import InspectRequest, inspect
from petra.measure.interface import interface_of
from petra.runtimes.base import InputSpec
from petra.runtimes.openvino import OpenVino


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
