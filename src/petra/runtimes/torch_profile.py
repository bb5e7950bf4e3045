"""PyTorch's own profile of a program: every operator that it calls, in order, without those that
these call.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from petra.core.profile import (
    CODES,
    DYNAMIC,
    FLOAT,
    INT8,
    FileContents,
    FileLayer,
    NotProfiled,
    Profile,
    Ran,
    Stored,
)
from petra.runtimes.base import Arrays
from petra.runtimes.onnx_layers import TENSORS
from petra.runtimes.onnx_profile import WARM_UP, typical

if TYPE_CHECKING:
    from torch.fx import Node

    from petra.runtimes.torch_program import LoadedProgram

CALLS = 50
"""Most that are recorded: PyTorch keeps every operator of each as an object."""

_MARK = "petra: call"
_WEIGHTS_AT = dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear", "embedding"), 1)
_WEIGHTS_AT |= {"embedding": 0, "conv_transpose1d": 1, "conv_transpose2d": 1, "addmm": 2}
_WEIGHTS_AT |= dict.fromkeys(("mm", "bmm", "matmul", "rowwise_linear", "dynamic_linear"), 1)
_DECODERS = ("dequantize_per_tensor", "dequantize_per_channel", "dequantize_affine", "decode")


def profile_torch(session: LoadedProgram, inputs: Arrays, calls: int, *, device: str) -> Profile:
    """See `Runtime.profile`: of each operator the mean of the middle half of the calls, operators
    that it calls included.

    Raises NotProfiled on a GPU, where operators only start what runs later.
    """
    if device != "cpu":
        raise NotProfiled(
            "petra reads PyTorch's profile on the CPU alone",
            hint="on a GPU, torch.profiler.profile with ProfilerActivity.CUDA shows its kernels",
        )
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    calls, times = min(calls, CALLS), []
    for _ in range(WARM_UP):
        session.run(inputs)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], acc_events=True) as recording:
        for _ in range(calls):
            start = time.perf_counter()
            with record_function(_MARK):
                session.run(inputs)
            times.append(time.perf_counter() - start)
    contents, order = contents_of_program(session.graph)
    operators = tuple(merged(_runs(recording.events()), contents, order))
    middle = "mean of the middle half"
    return Profile(operators, contents, calls, middle, 0.001, typical(times) * 1e3)


Called = tuple[str, float]


def _runs(events: Iterable[Any]) -> list[list[Called]]:
    """Of every call, the operators that it calls itself, and their microseconds."""
    events = list(events)
    marks = [event for event in events if event.name == _MARK]
    return [
        [(child.name, float(child.cpu_time_total)) for child in _outermost(mark.cpu_children)]
        for mark in marks
    ]


def _outermost(children: Sequence[Any]) -> list[Any]:
    """In order; what only holds others, as compiled regions do, in favour of those."""
    found = []
    for child in sorted(children, key=lambda c: c.time_range.start):
        inner = child.cpu_children
        found += _outermost(inner) if inner and "::" not in child.name else [child]
    return found


def merged(
    runs: Sequence[Sequence[Called]], contents: FileContents, order: Mapping[str, Sequence[int]]
) -> list[Ran]:
    """The n-th call of an operator in every run is one: that of the n-th of the program's layers
    with this operator (`order`), where there are as many.
    """
    took: dict[tuple[str, int], list[float]] = defaultdict(list)
    for run in runs:
        seen: dict[str, int] = defaultdict(int)
        for name, microseconds in run:
            took[name, seen[name]].append(microseconds)
            seen[name] += 1
    counts: dict[str, int] = defaultdict(int)
    for name, _ in took:
        counts[name] += 1
    found = []
    for (name, n), times in took.items():
        kind = name.rpartition("::")[2]
        places = order.get(kind, ())
        layer = places[n] if len(places) == counts[name] else None
        precision = contents.layers[layer].precision if layer is not None else ""
        computed_in = FLOAT if precision in (INT8, CODES) else precision  # it simulates integers
        ms = typical(times) * len(times) / max(1, len(runs)) / 1e3
        found.append(Ran(name, ms, computed_in, None, layer))
    return found


def contents_of_program(graph: Any) -> tuple[FileContents, dict[str, list[int]]]:
    """What an exported program asks for, and by operator the places of its layers in order."""
    layers: list[FileLayer] = []
    order: dict[str, list[int]] = defaultdict(list)
    readers: dict[str, int] = {}
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    for number, node in enumerate(nodes):
        kind = _kind(node)
        if kind not in _WEIGHTS_AT or len(node.args) <= _WEIGHTS_AT[kind]:
            continue
        constant, decoded = _constant(node.args[_WEIGHTS_AT[kind]])
        order[kind].append(len(layers))
        for given in node.all_input_nodes:
            held, _ = _constant(given)
            if held is not None:
                readers.setdefault(str(held.target), len(layers))
        layers.append(_layer(graph, number, node, constant, decoded=decoded))
    state = dict(graph.state_dict())
    tensors = sorted(state, key=lambda name: -state[name].nbytes)[:TENSORS]
    return FileContents(
        layers=tuple(layers),
        tensors=tuple(
            Stored(
                name,
                tuple(state[name].shape),
                str(state[name].dtype).removeprefix("torch."),
                state[name].nbytes,
                readers.get(name),
                f"the program's {name}",
            )
            for name in tensors
        ),
        nodes=len(nodes),
        bytes=sum(t.nbytes for t in state.values()),
    ), dict(order)


def _kind(node: Node) -> str:
    """'conv2d' of ``aten.conv2d.default``, and of a Python function of that name."""
    schema: Any = getattr(node.target, "_schema", None)
    name = schema.name if schema is not None else getattr(node.target, "__name__", "")
    return str(name).rpartition("::")[2]


def _layer(
    graph: Any, number: int, node: Node, constant: Node | None, *, decoded: bool
) -> FileLayer:
    tensor = graph.state_dict().get(str(constant.target)) if constant is not None else None
    kind, source = _kind(node), node.args[0]
    shape = tuple(tensor.shape) if tensor is not None else ()
    given = getattr(source, "target", "") if kind != "embedding" else ""
    codes = any(name in str(given) for name in _DECODERS)
    precision = FLOAT if tensor is None else str(tensor.dtype).removeprefix("torch.")
    plain = type(tensor).__name__ in ("Tensor", "Parameter", "NoneType")
    if kind in ("rowwise_linear", "dynamic_linear") or not plain:
        precision = DYNAMIC
    elif decoded:
        precision = INT8 if codes else CODES
    name = str(constant.target).rpartition(".")[0] if constant is not None else ""
    groups = node.args[6] if kind.startswith("conv") and len(node.args) > 6 else 1
    return FileLayer(
        number,
        kind,
        name,
        shape,
        precision,
        closed=True,
        depthwise=isinstance(groups, int) and groups > 1 and min(shape[:2], default=0) == 1,
        bytes=0 if tensor is None else math.prod(shape) * tensor.element_size(),
    )


def _constant(value: Any) -> tuple[Node | None, bool]:
    """The constant that a value is read from, and whether it is decoded on the way."""
    decoded = False
    for _ in range(8):
        op = getattr(value, "op", "")
        if op == "get_attr":
            return value, decoded
        target = str(getattr(value, "target", ""))
        if op != "call_function" or not value.args:
            return None, decoded
        if any(name in target for name in _DECODERS):
            decoded = True
        elif not any(name in target for name in ("permute", "transpose", ".t.", "view", "to.")):
            return None, decoded
        value = value.args[0]
    return None, decoded
