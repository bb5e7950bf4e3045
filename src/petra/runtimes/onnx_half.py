"""Weights of an ONNX file in 16 bits, each followed by a cast: half the bytes for every runtime
that reads the file.

Runtimes cast once, while they load the file. OpenVINO computes in bf16 when it finds weights stored
so (see `petra.runtimes.openvino`); in ONNX Runtime, which has no 16-bit arithmetic on CPUs, the
graph computes in float32.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, numpy_helper

from petra.runtimes.onnx_graph import reads

SMALLEST = 64
"""Elements from which a weight takes less room with its cast than without."""

_STORED = {torch.bfloat16: TensorProto.BFLOAT16, torch.float16: TensorProto.FLOAT16}


def store_half(model: ModelProto, dtype: torch.dtype) -> None:
    """Store float32 initialisers in `dtype` (bfloat16 or float16), in place; beyond its range they
    become infinite.
    """
    graph = model.graph
    taken = {name for node in graph.node for name in (*reads(node), *node.output)}
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < SMALLEST:
            continue
        name, stored = tensor.name, f"{tensor.name}h"
        while stored in taken:
            stored += "h"
        taken.add(stored)
        value = torch.from_numpy(numpy_helper.to_array(tensor).copy()).to(dtype)
        raw = value.view(torch.int16).numpy().tobytes()
        tensor.CopyFrom(onnx.helper.make_tensor(stored, _STORED[dtype], tensor.dims, raw, raw=True))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
