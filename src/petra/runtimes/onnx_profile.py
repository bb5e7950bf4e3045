"""ONNX Runtime's own profile of an ONNX file.

The file is given to it with nodes that are named by their number: what petra writes has no names,
and ONNX Runtime writes those of others into its record as they are.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petra.core.profile import CODES, FLOAT, INT8, FileContents, Profile, Ran
from petra.runtimes.base import Arrays
from petra.runtimes.onnx_export import data_beside
from petra.runtimes.onnx_inspect import FLOAT_COMPUTE, INTEGER_COMPUTE
from petra.runtimes.onnx_layers import contents_of, load_graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from petra.runtimes.onnxruntime import LoadedOnnx

WARM_UP = 5
EVENTS = 100_000
"""Operators that are recorded altogether, 50 MB of JSON. ONNX Runtime keeps a million."""

_TOKEN = re.compile(r"petra-node-(\d+)\b|petra-node-(\d+)_")
_INNER = "petra-inner"
_TYPES = {"float": FLOAT, "double": "float64", "uint8": INT8}
_DECODING = ("MatMulNBits",)


def profile_onnx(
    path: Path, inputs: Arrays, calls: int, load: Callable[..., LoadedOnnx]
) -> Profile:
    """See `Runtime.profile`; `load` is given a path and where to `record`.

    Times are in whole microseconds, cut off: of each operator the mean of the middle half of the
    calls, which is as robust as a median and finer than the steps.
    """
    model = load_graph(path)
    contents = contents_of(model)
    calls = max(1, min(calls, EVENTS // max(1, contents.nodes)))
    with tempfile.TemporaryDirectory(prefix="petra-profile-") as scratch:
        place = named_copy(model, path, Path(scratch))
        session = load(place, record=Path(scratch) / "record")
        for _ in range(WARM_UP + calls):
            session.run(inputs)
        events = json.loads(session.recorded().read_text(encoding="utf-8", errors="replace"))
    runs = split_runs(events)[WARM_UP:]
    operators = tuple(merged([nodes for _, nodes in runs], contents))
    whole = typical([length for length, _ in runs]) / 1e3
    return Profile(operators, contents, len(runs), "mean of the middle half", 1.0, whole)


def named_copy(model: ModelProto, path: Path, place: Path) -> Path:
    """The model in the directory `place`, its nodes named by their number. `model` is changed."""
    for number, node in enumerate(model.graph.node):
        node.name = f"petra-node-{number}"
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                _name_inner(graph)
    for function in model.functions:
        for node in function.node:
            node.name = ""
    copy = place / path.name
    copy.write_bytes(model.SerializeToString())
    beside = data_beside(path)
    if beside.is_file():
        target = data_beside(copy)
        with suppress(OSError):
            target.hardlink_to(beside)
        if not target.exists():
            shutil.copyfile(beside, target)
    return copy


def _name_inner(graph: GraphProto) -> None:
    for number, node in enumerate(graph.node):
        node.name = f"{_INNER}-{number}"
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                _name_inner(inner)


def number_in(name: str) -> int | None:
    """The first number of a node that a name of the runtime's has in it."""
    found = _TOKEN.search(name)
    return None if found is None else int(found[1] or found[2])


def numbers_in(name: str) -> list[int]:
    """All of them."""
    return [int(one or other) for one, other in _TOKEN.findall(name)]


Event = Mapping[str, Any]


def split_runs(events: Iterable[Event]) -> list[tuple[float, list[Event]]]:
    """Microseconds of every call in a record, and the operators in it, in order. What runs within a
    loop or a branch is part of that.
    """
    whole = sorted(
        (float(e["ts"]), float(e["dur"])) for e in events if e.get("name") == "model_run"
    )
    nodes = sorted(
        (
            e
            for e in events
            if e.get("cat") == "Node" and str(e.get("name", "")).endswith("_kernel_time")
        ),
        key=lambda e: float(e["ts"]),
    )
    nodes = [e for e in nodes if not str(e["name"]).startswith(_INNER)]
    found, at = [], 0
    for start, length in whole:
        while at < len(nodes) and float(nodes[at]["ts"]) < start:
            at += 1
        first = at
        while at < len(nodes) and float(nodes[at]["ts"]) <= start + length:
            at += 1
        found.append((length, nodes[first:at]))
    return found


def merged(runs: Sequence[Sequence[Event]], contents: FileContents) -> list[Ran]:
    """One record for every operator of all calls, which run the same ones."""
    order: dict[str, Event] = {}
    took: dict[str, list[float]] = defaultdict(list)
    for nodes in runs:
        for event in nodes:
            order.setdefault(str(event["name"]), event)
            took[str(event["name"])].append(float(event["dur"]))
    place = {layer.node: at for at, layer in enumerate(contents.layers)}
    return [
        _ran(event, typical(took[name]) * len(took[name]) / max(1, len(runs)), place)
        for name, event in order.items()
    ]


def _ran(event: Event, microseconds: float, place: Mapping[int, int]) -> Ran:
    arguments = event.get("args", {})
    kind = str(arguments.get("op_name", "?"))
    numbers = numbers_in(str(event["name"]))
    computes = kind in (*FLOAT_COMPUTE, *INTEGER_COMPUTE)
    layers = [place[n] for n in numbers if n in place] if computes else []
    return Ran(
        kind=kind,
        ms=microseconds / 1e3,
        precision=_precision(kind, arguments),
        node=numbers[0] if numbers else None,
        layer=layers[0] if layers else None,
    )


def _precision(kind: str, arguments: Mapping[str, Any]) -> str:
    """What it computes in: integers where it is an integer kernel, else the type of its input."""
    if kind in _DECODING:
        return CODES
    if kind in INTEGER_COMPUTE or kind.startswith("QLinear"):
        return INT8
    given = arguments.get("input_type_shape")
    first = next(iter(given), None) if isinstance(given, list) else None
    name = next(iter(first), "") if isinstance(first, dict) else ""
    return _TYPES.get(name, name)


def typical(times: Sequence[float]) -> float:
    """The mean of the middle half, 0 of nothing."""
    ordered = sorted(times)
    quarter = len(ordered) // 4
    return statistics.fmean(ordered[quarter : len(ordered) - quarter]) if ordered else 0.0
