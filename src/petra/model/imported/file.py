"""Reading an ONNX file: what is in it, held to what petra understands before it is used.

Nothing runs here. The file is parsed, tensors are read from it and from files beside it, and nodes
are listed in their order; `petra.model.imported.build` makes layers of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from petra.core.text import printable
from petra.model.imported.tensors import FREE, OnnxRefused, data_files, read_tensor, type_name

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"
OPSETS = range(7, 27)
"""Versions of ONNX's own operators that are read."""

MOST_NODES = 100_000
_DOMAINS = ("", "ai.onnx")
_INTEGERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger")
_WHOLE_GRAPHS = ("If", "Loop", "Scan", "SequenceMap")


@dataclass(frozen=True)
class Port:
    """An input or output of the file: `name` as it is there, `public` as petra writes it, which is
    the same where it is a name in Python too. Of `shape`, sizes are None where they are free.
    """

    name: str
    public: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Operation:
    """A node: `op` is ONNX's name of its operator; reads and writes are names of values, '' where
    an optional one is absent.
    """

    op: str
    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        """ "Conv '/layer1/conv'"."""
        return f"{self.op} {printable(self.name or ' '.join(self.writes))[:80]!r}"


@dataclass(frozen=True)
class Source:
    """Where a model came from: the file, the files beside it that hold its weights, and a digest
    of them all.
    """

    path: str
    beside: tuple[str, ...]
    digest: str

    @property
    def name(self) -> str:
        return Path(self.path).name

    def check_unchanged(self) -> None:
        """Raise OnnxRefused when the files are not any more what was read."""
        files = (Path(self.path), *map(Path, self.beside))
        if not all(file.is_file() for file in files) or digest_of(files) != self.digest:
            raise OnnxRefused(
                f"{self.path}: the file has changed since the study read it, or is gone",
                hint="put it back as it was, or start a new study with the one that there is now",
            )


@dataclass(frozen=True)
class OnnxFile:
    """What a file holds: of its operators' version `opset`, in their order."""

    source: Source
    opset: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operations: tuple[Operation, ...]
    tensors: Mapping[str, np.ndarray]


def digest_of(files: tuple[Path, ...]) -> str:
    """SHA-256 of the contents, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_file(path: Path) -> OnnxFile:
    """Parse and check. Raises OnnxRefused, with the node or tensor and what to do, for what is no
    ONNX file, is damaged, reaches outside of its directory, or holds what petra does not read.
    """
    proto = parsed(path)
    opset = _opset(path, proto)
    graph = proto.graph
    _check_kind(path, proto)
    beside = tuple(dict.fromkeys(data_files(path, graph)))
    tensors = {t.name: read_tensor(path, t) for t in graph.initializer}
    given = [value for value in graph.input if value.name not in tensors]
    inputs, outputs = _ports(path, given, "input"), _ports(path, graph.output, "output")
    for port in inputs:
        if port.dtype not in FREE:
            raise OnnxRefused(
                f"{path}: input {port.name!r} is {port.dtype}",
                hint=f"allowed: {', '.join(FREE)}; export the model in float32",
            )
    operations = tuple(_operation(path, node) for node in graph.node)
    _check_order(path, {p.name for p in inputs} | tensors.keys(), operations, outputs)
    source = Source(str(path.resolve()), tuple(map(str, beside)), digest_of((path, *beside)))
    return OnnxFile(source, opset, inputs, outputs, operations, tensors)


def parsed(path: Path) -> onnx.ModelProto:
    """The message that a file holds, without what is in files beside it."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise OnnxRefused(f"{path}: no such file", hint="give the path of an .onnx file")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    except (DecodeError, MemoryError, ValueError) as error:
        raise OnnxRefused(f"{path}: is no ONNX file, or damaged", hint="export it again") from error
    if not proto.graph.node:
        raise OnnxRefused(f"{path}: holds no operators", hint="export the model again")
    return proto


def _opset(path: Path, proto: onnx.ModelProto) -> int:
    found = [o.version for o in proto.opset_import if o.domain in _DOMAINS]
    if len(found) == 1 and found[0] in OPSETS:
        return int(found[0])
    said = f"opset {found[0]}" if found else "no opset"
    raise OnnxRefused(
        f"{path}: asks for {said} of ONNX's operators",
        hint=f"allowed: {OPSETS[0]} to {OPSETS[-1]}; onnx.version_converter converts files",
    )


def _check_kind(path: Path, proto: onnx.ModelProto) -> None:
    """Refuse what no later step could treat, by what it is."""
    if len(proto.graph.node) > MOST_NODES:
        raise OnnxRefused(f"{path}: {len(proto.graph.node)} nodes, at most {MOST_NODES} are read")
    if proto.graph.sparse_initializer:
        raise OnnxRefused(f"{path}: has sparse weights", hint="export it with dense ones")
    local = {(f.domain, f.name) for f in proto.functions}
    for node in proto.graph.node:
        what = f"{path}: node {printable(node.name)[:80]!r}"
        if (node.domain, node.op_type) in local:
            raise OnnxRefused(
                f"{what} calls the file's own function {printable(node.op_type)[:80]}",
                hint="write functions out first: onnx.inliner.inline_local_functions",
            )
        quantized = node.op_type in _INTEGERS or node.op_type.startswith(("QLinear", "QGemm"))
        if quantized or node.op_type in ("ConvInteger", "MatMulNBits", "DynamicQuantizeMatMul"):
            raise OnnxRefused(
                f"{path}: is quantized already ({node.op_type})",
                hint="give the float file that it was made of; petra verify measures this one",
            )
        if node.domain not in _DOMAINS:
            raise OnnxRefused(
                f"{what} is {printable(node.domain)[:80]}.{printable(node.op_type)[:80]}, which is"
                " no operator of ONNX's own",
                hint="export without fusions or custom operators: they are made when it is loaded",
            )
        if node.op_type in _WHOLE_GRAPHS:
            raise OnnxRefused(
                f"{what} is {node.op_type}: a graph inside the graph, which petra does not read",
                hint="export the model without branches and loops over values",
            )


def _ports(path: Path, values: Any, kind: str) -> tuple[Port, ...]:
    if not values:
        raise OnnxRefused(f"{path}: has no {kind}s", hint="export the model again")
    taken: set[str] = set()
    ports = []
    for value in values:
        if not value.type.HasField("tensor_type"):
            raise OnnxRefused(f"{path}: {kind} {printable(value.name)[:80]!r} is no tensor")
        public = public_name(value.name, taken)
        taken.add(public)
        tensor = value.type.tensor_type
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
        )
        ports.append(Port(value.name, public, type_name(tensor.elem_type), shape))
    if len({port.name for port in ports}) < len(ports):
        raise OnnxRefused(f"{path}: two {kind}s have one name", hint="export the model again")
    return tuple(ports)


def public_name(name: str, taken: set[str]) -> str:
    """`name` where it may be one in Python and of a file, else one like it that is not taken."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:80] or "value"
    plain = f"value_{plain}" if not plain.isidentifier() else plain
    plain = name if name.isidentifier() and name.isascii() and len(name) <= 80 else plain
    found, number = plain, 1
    while found in taken:
        found, number = f"{plain}_{number}", number + 1
    return found


def _operation(path: Path, node: onnx.NodeProto) -> Operation:
    attributes = {a.name: _attribute(path, node, a) for a in node.attribute}
    names = tuple(node.input), tuple(node.output)
    return Operation(node.op_type, node.name, *names, attributes)


def _attribute(path: Path, node: onnx.NodeProto, given: onnx.AttributeProto) -> Any:
    import onnx

    if given.type == onnx.AttributeProto.TENSOR:
        return read_tensor(path, given.t)
    if given.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        raise OnnxRefused(f"{path}: {node.op_type} holds a graph of its own", hint="export it flat")
    value = onnx.helper.get_attribute_value(given)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return list(value) if given.type in _LISTS else value


_LISTS = (6, 7)  # AttributeProto.FLOATS, INTS


def _check_order(
    path: Path, known: set[str], operations: tuple[Operation, ...], outputs: tuple[Port, ...]
) -> None:
    """Refuse graphs in which a value is read before it is made, as in a cycle, or made twice."""
    known = {*known, ""}
    for operation in operations:
        for name in operation.reads:
            if name not in known:
                raise OnnxRefused(
                    f"{path}: {operation} reads {printable(name)[:80]!r}, which nothing before it"
                    " makes",
                    hint="the graph has a cycle or is cut off: export the model again",
                )
        for name in filter(None, operation.writes):
            if name in known:
                raise OnnxRefused(f"{path}: {printable(name)[:80]!r} is made twice")
            known.add(name)
    for port in outputs:
        if port.name not in known:
            raise OnnxRefused(f"{path}: nothing makes output {port.name!r}")
