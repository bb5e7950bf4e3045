"""OpenVINO's own profile of a model: counters of every operator, and the graph that it made."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petra.core.profile import CODES, FLOAT, INT8, FileContents, Profile, Ran
from petra.runtimes.base import Arrays
from petra.runtimes.onnx_layers import absorbed, contents_of, load_graph
from petra.runtimes.onnx_profile import WARM_UP, named_copy, numbers_in, typical

if TYPE_CHECKING:
    from petra.runtimes.openvino import LoadedOpenVino

COMPUTES = ("Convolution", "FullyConnected", "MatMul", "RNN", "LSTM", "GRU", "MHA", "Attention")
"""Parts of OpenVINO's names of what does the arithmetic of layers."""

TIMES = 5
"""Compilations: a stall in two of them changes nothing."""

_PRECISIONS = {"i8": INT8, "u8": INT8, "bf16": "bfloat16", "f16": "float16", "f32": FLOAT}
_PRECISIONS |= {"fp32": FLOAT, "fp16": "float16", "i32": "int32", "i64": "int64", "u4": CODES}


def profile_openvino(
    path: Path, inputs: Arrays, calls: int, load: Callable[..., LoadedOpenVino]
) -> Profile:
    """See `Runtime.profile`; `load` is given a path and whether to `record`.

    OpenVINO adds up whole microseconds of every call, cut off, since the model was compiled. So it
    is compiled `TIMES` times: a time is the median of as many means of the calls after those to
    warm up. Operators far below a microsecond show as nothing.
    """
    with tempfile.TemporaryDirectory(prefix="petra-profile-") as scratch:
        contents, place, copy, names = FileContents(), dict[int, int](), path, dict[str, str]()
        if path.suffix == ".onnx":
            model = load_graph(path)
            contents = contents_of(model)
            place = absorbed(model, contents)
            copy, names = named_copy(model, path, Path(scratch))
        feed = {names.get(name, name): array for name, array in inputs.items()}
        each = max(1, calls // TIMES)
        found = [_launch(load(copy, record=True), feed, each, place) for _ in range(TIMES)]
    operators = tuple(
        replace(same[0], ms=statistics.median(one.ms for one in same))
        for same in zip(*(operators for operators, _ in found), strict=True)
    )
    whole = typical([time for _, times in found for time in times]) * 1e3
    return Profile(operators, contents, each * TIMES, f"median of {TIMES} means", 1.0, whole)


def _launch(
    session: LoadedOpenVino, inputs: Arrays, calls: int, place: Mapping[int, int]
) -> tuple[list[Ran], list[float]]:
    """The operators of one compilation, and seconds of every call."""
    for _ in range(WARM_UP):
        session.run(inputs)
    before = {record.node_name: _us(record) for record in session.recorded()[0]}
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - start)
    return ran(*session.recorded(), place, before=before, calls=calls), times


def _us(record: Any) -> float:
    """Microseconds of a call, over all since the model was compiled."""
    return float(record.real_time.total_seconds() * 1e6)


def ran(
    records: Iterable[Any],
    nodes: Iterable[Any],
    place: Mapping[int, int],
    *,
    before: Mapping[str, float],
    calls: int,
) -> list[Ran]:
    """The operators that ran: `before` are their mean times in the calls to warm up, which are
    taken out, `place` the layer that a node is part of.
    """
    made_of = {node.get_friendly_name(): _facts(node) for node in nodes}
    found = []
    for record in records:
        total = _us(record) * (WARM_UP + calls) - before.get(record.node_name, 0.0) * WARM_UP
        facts = made_of.get(record.node_name)
        if facts is None or record.node_type in ("Input", "Output", "Parameter", "Result"):
            continue
        numbers = numbers_in(f"{facts.get('originalLayersNames', '')},{record.node_name}")
        computes = any(part in record.node_type for part in COMPUTES)
        layers = [place[n] for n in numbers if n in place] if computes else []
        found.append(
            Ran(
                kind=record.node_type,
                ms=max(0.0, total / calls) / 1e3,
                precision=_precision(record.exec_type, facts),
                node=numbers[0] if numbers else None,
                layer=layers[0] if layers else None,
                implementation=record.exec_type,
            )
        )
    return found


def _facts(node: Any) -> dict[str, str]:
    """What OpenVINO notes of a node of its own graph, as text."""
    return {str(key): _text(value) for key, value in node.get_rt_info().items()}


def _text(value: Any) -> str:
    plain = getattr(value, "value", value)
    return ",".join(map(str, plain)) if isinstance(plain, list | tuple) else str(plain)


def _precision(implementation: str, facts: Mapping[str, str]) -> str:
    """'brgconv_avx512_core_vnni_I8' computes in 8 bits; else what its graph says of it."""
    tail = implementation.rpartition("_")[2].lower()
    said = facts.get("runtimePrecision", "").lower()
    return _PRECISIONS.get(tail) or _PRECISIONS.get(said, said)
