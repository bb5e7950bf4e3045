"""Profiles of runtimes: what runs, how long, in which precision, for which layer of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from explained_models import (
    LAYERS,
    arrays,
    float_file,
    int8_file,
    net,
    open_pair,
    pair_arrays,
    profiled,
)

from petra.core.errors import ArtifactError
from petra.core.profile import CODES, FLOAT, INT8, NotProfiled, Profile
from petra.core.target import Target
from petra.explaining.measuring import profile_file
from petra.measure.client import alone
from petra.measure.profile_main import ProfileRequest, profile
from petra.runtimes.base import Runtime
from petra.runtimes.onnx_layers import contents_of, load_graph
from petra.runtimes.onnx_profile import split_runs, typical
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.table import runtime_for

CALLS = 30


def of_layers(found: Profile) -> list[str]:
    """The precisions of the file's layers as they ran, in the file's order."""
    ran = {one.layer: one.precision for one in found.operators if one.layer is not None}
    return [ran.get(at, "") for at in range(len(found.file.layers))]


def test_a_float_file_has_a_time_for_every_layer() -> None:
    found = profiled(float_file())
    assert found.calls == 20
    assert [layer.precision for layer in found.file.layers] == [FLOAT] * 4
    assert of_layers(found) == [FLOAT] * 4
    assert [layer.depthwise for layer in found.file.layers] == [False, True, False, False]
    assert all(one.ms >= 0 for one in found.operators)
    # Operators of a call are within it.
    assert 0 < found.total_ms <= 1.05 * found.traced_ms


def test_an_int8_file_runs_in_integers_and_loses_none_of_its_layers() -> None:
    file, trace = int8_file()
    found = profiled(file)
    assert trace.touched == LAYERS
    assert [layer.precision for layer in found.file.layers] == [INT8] * 4
    assert of_layers(found) == [INT8] * 4
    assert {"QLinearConv"} <= {one.kind for one in found.operators}


def test_the_bytes_of_layers_are_those_of_their_tensors() -> None:
    contents = contents_of(load_graph(float_file()))
    wanted = [4 * sum(p.numel() for p in getattr(net(), name).parameters()) for name in LAYERS]
    assert [layer.bytes for layer in contents.layers] == wanted
    assert sum(t.bytes for t in contents.tensors) <= contents.bytes
    assert contents.tensors[0].layer == 2


def test_an_open_pair_is_found_to_be_float(tmp_path: Path) -> None:
    found = OnnxRuntime().profile(open_pair(tmp_path / "p.onnx"), pair_arrays(), CALLS)
    assert [(layer.precision, layer.closed) for layer in found.file.layers] == [
        (INT8, True),
        (INT8, False),
    ]
    assert of_layers(found) == [INT8, FLOAT]
    left = {one.node for one in found.operators if one.kind == "DequantizeLinear"}
    assert left & {border.node for border in found.file.borders if border.layer == 1}


def test_only_whole_calls_count_and_what_a_loop_runs_is_the_loops() -> None:
    def node(name: str, ts: int, dur: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur}

    events = [
        node("petra-node-0", 5, 1),
        {"cat": "Session", "name": "model_run", "ts": 10, "dur": 10},
        node("petra-node-0", 11, 4),
        node("petra-inner-0", 12, 3),
        {"cat": "Session", "name": "model_run", "ts": 30, "dur": 7},
        node("petra-node-0", 31, 5),
    ]
    runs = split_runs(events)
    assert [(length, [event["dur"] for event in nodes]) for length, nodes in runs] == [
        (10.0, [4]),
        (7.0, [5]),
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 100])
def test_the_typical_time_is_within_the_quartiles_and_ignores_a_disturbance(n: int) -> None:
    times = [*np.random.default_rng(n).uniform(1, 2, n)]
    assert min(times) <= typical(times) <= max(times)
    if n >= 7:
        assert typical([*times, 1e9]) < 2


def test_torch_names_the_layers_of_its_programs() -> None:
    file = float_file("torch")
    found = runtime_for(Target("torch")).profile(file, arrays(), CALLS)
    assert tuple(layer.name for layer in found.file.layers) == LAYERS
    assert [one.layer for one in found.operators if one.layer is not None] == [0, 1, 2, 3]
    assert 0 < found.total_ms <= 1.05 * found.traced_ms


def test_openvino_says_what_it_computes_in() -> None:
    pytest.importorskip("openvino")
    file, _ = int8_file("middle")
    found = runtime_for(Target("openvino")).profile(file, arrays(), CALLS)
    assert of_layers(found)[:3] == [INT8, INT8, FLOAT]
    assert found.total_ms <= 1.05 * found.traced_ms


def test_litert_and_a_gpu_say_that_they_are_not_read() -> None:
    with pytest.raises(NotProfiled, match="no operator profiler"):
        runtime_for(Target("litert")).profile(Path("m.tflite"), {}, 1)

    class Silent(OnnxRuntime):
        profile = Runtime.profile

    with pytest.raises(NotProfiled, match="onnxruntime has no operator profiler"):
        Silent().profile(Path("m.onnx"), {}, 1)


def test_weights_that_are_codes_are_told_from_int8_arithmetic(tmp_path: Path) -> None:
    model = load_graph(open_pair(tmp_path / "p.onnx"))
    model.graph.node[7].input[0] = "input"  # float into the second convolution
    assert [layer.precision for layer in contents_of(model).layers] == [INT8, CODES]


# ---- the measuring process -----------------------------------------------------------------------


def test_it_is_measured_in_a_process_without_torch_beside_the_untouched_model() -> None:
    base = float_file()
    file, _ = int8_file()
    request = ProfileRequest(Target(), str(file), baseline=str(base))
    found, torch_loaded = alone(
        profile, request, artifact=str(file), runtimes=("onnxruntime",), threads=1
    )
    assert not torch_loaded
    assert found.mine is not None
    assert found.base is not None
    assert found.ratio == pytest.approx(found.mine_ms / (found.base_ms or 0), rel=0.5)
    assert replace(found, mine=None) != found


def test_a_file_that_does_not_run_is_refused_by_its_runtime(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="cannot load this file"):
        profile_file(broken, Target())
