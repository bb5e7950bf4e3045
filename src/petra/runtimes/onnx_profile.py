"""ONNX Runtime's own profile of an ONNX file.

The file is given to it with nodes and values that are named by the number of their node: what petra
writes has no names, and ONNX Runtime writes those of others into its record as they are.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petra.core.errors import ArtifactError
from petra.core.profile import CODES, FLOAT, INT8, Profile, Ran
from petra.runtimes.base import Arrays
from petra.runtimes.onnx_export import data_beside
from petra.runtimes.onnx_graph import rename_inputs
from petra.runtimes.onnx_inspect import FLOAT_COMPUTE, INTEGER_COMPUTE
from petra.runtimes.onnx_layers import absorbed, contents_of, load_graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

    from petra.runtimes.onnxruntime import LoadedOnnx

WARM_UP = 5
EVENTS = 100_000
"""Operators that are recorded altogether, 50 MB of JSON. ONNX Runtime keeps a million."""

_TOKEN = re.compile(r"petra-node-(\d+)")
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
    place = absorbed(model, contents)
    calls = max(1, min(calls, EVENTS // max(1, contents.nodes)))
    with tempfile.TemporaryDirectory(prefix="petra-profile-") as scratch:
        copy, names = named_copy(model, path, Path(scratch))
        session = load(copy, record=Path(scratch) / "record")
        feed = {names.get(name, name): array for name, array in inputs.items()}
        for _ in range(WARM_UP + calls):
            session.run(feed)
        events = _events(session.recorded())
    runs = split_runs(events)[WARM_UP:]
    operators = tuple(merged([nodes for _, nodes in runs], place))
    whole = typical([length for length, _ in runs]) / 1e3
    return Profile(operators, contents, len(runs), "mean of the middle half", 1.0, whole)


def _events(record: Path) -> list[Event]:
    try:
        found: list[Event] = json.loads(record.read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise ArtifactError(
            f"{record.name}: what ONNX Runtime recorded cannot be read: {error}"
        ) from None
    return found


def named_copy(model: ModelProto, path: Path, place: Path) -> tuple[Path, dict[str, str]]:
    """The model in the directory `place`, its nodes and their values named by number, and the new
    names of its inputs and values. `model` is changed.
    """
    graph, renamed = model.graph, dict[str, str]()
    constants = {tensor.name for tensor in graph.initializer}
    for number, value in enumerate(graph.input):
        if value.name not in constants:
            renamed[value.name] = f"petra-input-{number}"
    for number, node in enumerate(graph.node):
        node.name = f"petra-node-{number}"
        for at, name in enumerate(node.output):
            if name:
                renamed[name] = node.output[at] = f"{node.name}.{at}" if at else node.name
        for inner in graphs_in(node):
            _name_inner(inner)
    rename_inputs(graph, renamed)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = renamed.get(value.name, value.name)
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
    return copy, renamed


def graphs_in(node: NodeProto) -> Iterator[GraphProto]:
    """Loops and branches of a node."""
    for attribute in node.attribute:
        yield from (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs)


def _name_inner(graph: GraphProto) -> None:
    for number, node in enumerate(graph.node):
        node.name = f"{_INNER}-{number}"
        for inner in graphs_in(node):
            _name_inner(inner)


def numbers_in(name: str) -> list[int]:
    """The numbers of nodes that a name of the runtime's has in it."""
    return [int(number) for number in _TOKEN.findall(name)]


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


def merged(runs: Sequence[Sequence[Event]], place: Mapping[int, int]) -> list[Ran]:
    """One record for every operator of all calls, which run the same ones. `place` is the layer
    that a node is part of.
    """
    order: dict[str, Event] = {}
    took: dict[str, list[float]] = defaultdict(list)
    for nodes in runs:
        for event in nodes:
            order.setdefault(str(event["name"]), event)
            took[str(event["name"])].append(float(event["dur"]))
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
