"""The file that a person brought as the model, shipped as it came and measured like any other."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from petra.core.errors import ExportError
from petra.model.imported.file import SUFFIX, Port, Source, parsed
from petra.model.imported.tensors import read_tensor
from petra.runtimes.onnx_export import LARGEST, data_beside

if TYPE_CHECKING:
    import onnx

    from petra.model.imported.module import ImportedModel
    from petra.runtimes.base import Runtime


def check_reads(runtime: Runtime) -> None:
    """Raise ExportError unless the runtime takes ONNX files as they are."""
    if runtime.suffix != SUFFIX:
        raise ExportError(
            f"an ONNX file is measured as it came, and {runtime.target.name} does not read it",
            hint="allowed targets: onnxruntime, openvino; for others give the PyTorch model",
        )


def ship(model: ImportedModel, path: Path) -> list[Path]:
    """The file that `model` came from as `path`, and what ships with it. It is copied byte by byte
    unless it has to be changed in what it is called by: names that are none in Python, a number of
    items that is stated, weights in files of other names. What it computes is never touched.

    Raises OnnxRefused when the file is no longer what was read.
    """
    source = model.source
    source.check_unchanged()
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {p.name: p.public for p in (*model.inputs, *model.outputs) if p.name != p.public}
    stated = states_items(model)
    if not (source.beside or names or stated):
        shutil.copyfile(source.path, path)
        return [path]
    proto = parsed(Path(source.path))
    _with_data(proto, source)
    _renamed(proto.graph, names)
    _freed(proto.graph, {port.public for port in stated})
    return _written(proto, path)


def states_items(model: ImportedModel) -> tuple[Port, ...]:
    """Inputs and outputs of which the file states how many items there are in a call."""
    sizes = {p.shape[0] for p in model.inputs if p.shape and p.shape[0] is not None}
    ports = (*model.inputs, *model.outputs)
    return tuple(port for port in ports if port.shape and port.shape[0] in sizes)


def _with_data(proto: onnx.ModelProto, source: Source) -> None:
    """Read into the message what is in files beside it."""
    for tensor in proto.graph.initializer:
        if tensor.data_location == tensor.EXTERNAL:
            array = read_tensor(Path(source.path), tensor)
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = array.tobytes()


def _renamed(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give values other names; what has one of those already gets one of its own."""
    if not names:
        return
    wanted = set(names.values())

    def name(old: str) -> str:
        return names.get(old, f"{old}_inner" if old in wanted else old)

    for node in graph.node:
        node.input[:] = map(name, node.input)
        node.output[:] = map(name, node.output)
    for item in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        item.name = name(item.name)


def _freed(graph: onnx.GraphProto, stated: set[str]) -> None:
    """Let the first axis of inputs and outputs be of any size. What was inferred for values between
    them is left out: it is inferred again when the file is loaded.
    """
    if not stated:
        return
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.name in stated:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _written(proto: onnx.ModelProto, path: Path) -> list[Path]:
    import onnx

    weights = data_beside(path)
    weights.unlink(missing_ok=True)
    if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > LARGEST:
        onnx.save_model(proto, path, save_as_external_data=True, location=weights.name)
        return [path, weights]
    path.write_bytes(proto.SerializeToString())
    return [path]
