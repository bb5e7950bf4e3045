"""Nodes of a private domain, which stand in an exported graph for operators of petra's own until
they are written as standard ones: the exporter cannot fold their operands, and keeps them whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

DOMAIN = "petra"
_TYPES = [
    f"tensor({name})"
    for name in ("float", "float16", "bfloat16", "int8", "uint8", "int32", "int64")
]


def private(
    name: str, *, outputs: int = 1, attributes: Mapping[str, int | str] | None = None
) -> Any:
    """An operator of the private domain with any number of inputs, for onnxscript to call.

    attributes: an example of the value of each; they are given by name in the call.
    """
    from onnxscript import values

    schema = onnx.defs.OpSchema
    variadic = schema.FormalParameterOption.Variadic
    given = schema.FormalParameter("inputs", "T", param_option=variadic, is_homogeneous=False)
    results = [schema.FormalParameter(f"output_{i}", "tensor(float)") for i in range(outputs)]
    kinds = {int: schema.AttrType.INT, str: schema.AttrType.STRING}
    declared = schema(
        name,
        DOMAIN,
        1,
        inputs=[given],
        outputs=results,
        type_constraints=[("T", _TYPES, "")],
        attributes=[schema.Attribute(k, kinds[type(v)]) for k, v in (attributes or {}).items()],
    )
    return values.Op(values.Opset(DOMAIN, 1), name, declared)
