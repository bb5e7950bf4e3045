"""PyTorch -> one lean ONNX file with a dynamic batch dimension and meaningful input and output
names.

Past 2 GB, which is more than one protobuf message can hold, the weights are in a second file beside
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from petra.core.errors import ExportError
from petra.runtimes.base import error_line
from petra.runtimes.quiet import quiet

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from petra.core.interface import Interface, TensorSpec
    from petra.tasks.inputs import Inputs

OPSET = 20
"""Newest opset that ONNX Runtime and OpenVINO fuse quantized operators for without exception."""

LARGEST = 2 * 10**9
"""Bytes of weights in one file; protobuf's limit of 2**31 - 1 is for the graph too."""


def data_beside(path: Path) -> Path:
    """Where the weights of a model are that are too large for its own file, which finds them by
    this name.
    """
    return path.with_name(f"{path.name}.data")


def export_onnx(
    model: nn.Module,
    example: Inputs,
    path: Path,
    interface: Interface | None = None,
    *,
    opset: int = OPSET,
) -> Path:
    """Write `model` to `path`, and its weights to ``path.data`` where they exceed `LARGEST`.

    Returns `path`.

    example: a tensor (input named 'input'), a tuple ('input_0', ...) or a dict (its keys), batch
    first, any batch size. Outputs are named 'output', 'output_0', ..., or by their keys. The axes
    that `interface` leaves free are free in the file, and have their names; without one, the first
    of every input. Works for float modules, for graphs quantized by
    `petra.methods.quantize`, whose file is in QDQ form, and for modules with the layers of
    `petra.model.layers.quantized`. Models in half precision (`petra.model.layers.half`) are written
    with weights of 16 bits and arithmetic in float32, which a runtime may do in bf16.

    Raises `ExportError`, with the operator where it is known, when the model cannot be expressed in
    ONNX.
    """
    import onnx

    from petra.model.layers.half import half_dtype, widened
    from petra.runtimes.free_sizes import traced_example
    from petra.runtimes.named_program import named_program
    from petra.runtimes.onnx_half import store_half
    from petra.runtimes.onnx_lean import make_lean
    from petra.runtimes.onnx_quantized import lower
    from petra.tasks.inputs import batch_interface, named

    half = half_dtype(model)
    example = traced_example(example)
    interface = interface or batch_interface(example)
    traced = model if half is None else widened(model)
    program, output_names = named_program(traced, example, interface)
    proto = _translate(program, opset)
    _name_interface(proto.graph, [interface.input(n) for n in named(example)], output_names)
    lower(proto)
    proto = make_lean(proto)
    if half is not None:
        store_half(proto, half)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = data_beside(path)
    weights.unlink(missing_ok=True)
    if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > LARGEST:
        onnx.save_model(proto, path, save_as_external_data=True, location=weights.name)
        onnx.checker.check_model(path)
    else:
        onnx.checker.check_model(proto)
        path.write_bytes(proto.SerializeToString())
    return path


def _translate(program: torch.export.ExportedProgram, opset: int) -> onnx.ModelProto:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.onnx import OnnxExporterError

    from petra.runtimes.named_program import blamed_operator
    from petra.runtimes.onnx_quantized import translations
    from petra.runtimes.onnx_registry import parsed_once
    from petra.runtimes.recurrences import whole_recurrences

    with quiet(), sdpa_kernel(SDPBackend.MATH), parsed_once(), whole_recurrences():
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                external_data=False,
                verbose=False,
                custom_translation_table=translations(),
            )
        except OnnxExporterError as error:
            operator = blamed_operator(error)
            raise ExportError(
                f"{operator or 'an operator'} has no translation to ONNX"
                + ("" if operator else f": {error_line(error)}"),
                operator=operator,
                hint="express it with standard operators, or exclude the runtimes that need ONNX",
            ) from error
    assert exported is not None
    return exported.model_proto


def _name_interface(graph: onnx.GraphProto, specs: list[TensorSpec], outputs: list[str]) -> None:
    """Give the graph's inputs, outputs and free sizes their public names."""
    inputs = [spec.name for spec in specs]
    if len(graph.input) != len(inputs) or len(graph.output) != len(outputs):
        raise ExportError(
            f"the exported graph has {len(graph.input)} inputs and {len(graph.output)} outputs,"
            f" the model {len(inputs)} and {len(outputs)}",
            hint="return distinct tensors and use every input",
        )
    public = [*zip(graph.input, inputs, strict=True), *zip(graph.output, outputs, strict=True)]
    renamed = {value.name: name for value, name in public}
    taken = set(renamed.values())
    sizes: dict[str, str] = {}
    for value, spec in zip(graph.input, specs, strict=True):
        for dim, axis in zip(value.type.tensor_type.shape.dim, spec.axes, strict=True):
            if dim.dim_param and axis.name:
                sizes.setdefault(dim.dim_param, axis.name)
    for value, name in public:
        value.name = name
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_param = sizes[dim.dim_param]

    def public_name(name: str) -> str:
        return renamed.get(name, f"{name}_inner" if name in taken else name)

    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = public_name(name)
        for index, name in enumerate(node.output):
            node.output[index] = public_name(name)
    for item in (*graph.initializer, *graph.value_info):
        item.name = public_name(item.name)
