"""Sizes, tensors and plain arguments in the JSON of ``.pt2``: small parts of `torch_schema`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from petra.runtimes.torch_expressions import expression
from petra.runtimes.torch_records import NOT_GIVEN, Choice, Record
from petra.runtimes.torch_text import (
    identifier,
    symbol,
    weight_path,
    words,
)

Int = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**48)]
Float = Annotated[float, Field(allow_inf_nan=False)] | Literal["Infinity", "-Infinity", "NaN"]
Identifier = Annotated[str, AfterValidator(identifier)]
Words = Annotated[str, AfterValidator(words)]
WeightPath = Annotated[str, AfterValidator(weight_path)]
Symbol = Annotated[str, AfterValidator(symbol)]
ScalarType = Annotated[int, Field(ge=1, le=35)]
MemoryFormat = Annotated[int, Field(ge=1, le=4)]
Strided = Literal[7]
Empty = Annotated[dict[str, str], Field(max_length=0)]
MAX_PASSED_BITS = 256  # of sizes that graphs within graphs are given


# -- sizes and tensors -----------------------------------------------------------------------------


class Device(Record):
    type: Literal["cpu"]
    index: Literal[0] | None = None


class SymExprHint(Choice):
    as_int: Int = NOT_GIVEN
    as_bool: bool = NOT_GIVEN
    as_float: Float = NOT_GIVEN


class SymExpr(Record):
    expr_str: Annotated[str, AfterValidator(expression)]
    hint: SymExprHint | None = None


class SymInt(Choice):
    as_expr: SymExpr = NOT_GIVEN
    as_int: Int = NOT_GIVEN


class SymFloat(Choice):
    as_expr: SymExpr = NOT_GIVEN
    as_float: Float = NOT_GIVEN


class SymBool(Choice):
    as_expr: SymExpr = NOT_GIVEN
    as_bool: bool = NOT_GIVEN


class TensorMeta(Record):
    dtype: ScalarType
    sizes: Annotated[list[SymInt], Field(max_length=64)]
    requires_grad: bool
    device: Device
    strides: Annotated[list[SymInt], Field(max_length=64)]
    storage_offset: SymInt
    layout: Strided


# -- arguments -------------------------------------------------------------------------------------


class TensorArgument(Record):
    name: Identifier


class SymIntArgument(Choice):
    as_name: Identifier = NOT_GIVEN
    as_int: Int = NOT_GIVEN


class SymFloatArgument(Choice):
    as_name: Identifier = NOT_GIVEN
    as_float: Float = NOT_GIVEN


class SymBoolArgument(Choice):
    as_name: Identifier = NOT_GIVEN
    as_bool: bool = NOT_GIVEN


class OptionalTensorArgument(Choice):
    as_tensor: TensorArgument = NOT_GIVEN
    as_none: bool = NOT_GIVEN


class ComplexValue(Record):
    real: Float
    imag: Float
