"""What ONNX Runtime makes of a file: which operators run, and how much of the arithmetic is in
integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from petra.runtimes.base import InputSpec, Operators, counted

FLOAT_COMPUTE = (
    *(
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "NhwcFusedConv",
        "MatMul",
        "FusedMatMul",
        "Gemm",
        "FusedGemm",
        "Einsum",
    ),
    *("Attention", "MultiHeadAttention", "LSTM", "GRU", "RNN"),
)
INTEGER_COMPUTE = (
    *(
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
    ),
    *("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention", "MatMulNBits"),
)


def count_operators(path: Path) -> Operators:
    """Count the operators of an ONNX file. Cost: one session more."""
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="petra-operators-") as scratch:
        optimised = Path(scratch) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "weights"
        )
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        running = _nodes(optimised)
    integer = sum(n for name, n in running.items() if name in INTEGER_COMPUTE)
    compute = integer + sum(n for name, n in running.items() if name in FLOAT_COMPUTE)
    return Operators(_nodes(path), running, compute, integer)


Specs = tuple[InputSpec, ...]


def with_names(inputs: Specs, outputs: Specs, path: Path) -> tuple[Specs, Specs]:
    """Inputs and outputs of an ONNX file, with what it calls their free sizes, which a runtime did
    not tell.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    return _named(inputs, graph.input), _named(outputs, graph.output)


def _named(specs: Specs, values: Iterable[Any]) -> Specs:
    found = {v.name: tuple(size.dim_param for size in v.type.tensor_type.shape.dim) for v in values}
    fit = {spec.name for spec in specs if len(found.get(spec.name, ())) == len(spec.shape)}
    return tuple(
        replace(spec, names=found[spec.name]) if spec.name in fit else spec for spec in specs
    )


def _nodes(path: Path) -> dict[str, int]:
    import onnx

    return counted(n.op_type for n in onnx.load(str(path), load_external_data=False).graph.node)
