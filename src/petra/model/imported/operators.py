"""All operators that are read, besides those that become layers (`petra.model.imported.layers`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from petra.model.imported.elementwise import ELEMENTWISE, Run
from petra.model.imported.moving import MOVING
from petra.model.imported.over_axes import OVER_AXES
from petra.model.imported.pictures import PICTURES
from petra.model.imported.values import Value, is_static, tensor
from petra.model.imported.windows import POOLING

OPERATORS: Mapping[str, Run] = {
    **ELEMENTWISE,
    **OVER_AXES,
    **MOVING,
    **PICTURES,
    **POOLING,
}

# These know what to do with sizes; the rest is given tensors.
_OF_SIZES = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "Sum", "Neg", "Clip", "Cast"),
        *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Xor", "Not"),
        *("Where", "Identity", "Shape", "Size", "Reshape", "Squeeze", "Unsqueeze", "Concat"),
        *("Split", "Slice", "Gather", "ConstantOfShape", "Range", "ReduceProd", "OneHot"),
    }
)


def compute(op: str, attributes: Mapping[str, Any], inputs: Sequence[Value]) -> tuple[Value, ...]:
    """What an operator makes of its inputs, None for those that are absent. Raises `Unreadable`
    for a use of it that PyTorch has no counterpart of, and what PyTorch raises.
    """
    given = list(inputs)
    while given and given[-1] is None:
        given.pop()
    if given and op not in _OF_SIZES and is_static(given[0]):
        given[0] = tensor(given[0])
    found = OPERATORS[op](attributes, *given)
    return found if isinstance(found, tuple) else (found,)
