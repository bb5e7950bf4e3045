"""The JSON of a ``.pt2`` archive, field by field, as petra writes it: what is not here is refused.

The records follow ``torch/_export/serde/schema.py`` and leave out what no file of petra's has:
custom objects, operators and nested lists as arguments, metadata, guards, tokens, gradients,
devices other than the CPU. What PyTorch gets is written from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from petra.runtimes.torch_expressions import MAX_BITS, MAX_POWER
from petra.runtimes.torch_records import NOT_GIVEN, Choice, Record
from petra.runtimes.torch_text import (
    argument_name,
    input_tree,
    leaves,
    module_path,
    operator,
    output_tree,
)
from petra.runtimes.torch_values import (
    MAX_PASSED_BITS,
    ComplexValue,
    Count,
    Device,
    Empty,
    Float,
    Identifier,
    Int,
    MemoryFormat,
    OptionalTensorArgument,
    ScalarType,
    Strided,
    Symbol,
    SymBool,
    SymBoolArgument,
    SymFloat,
    SymFloatArgument,
    SymInt,
    SymIntArgument,
    TensorArgument,
    TensorMeta,
    WeightPath,
    Words,
)


class GraphArgument(Record):
    name: Identifier
    graph: Graph


class Argument(Choice):
    as_none: bool = NOT_GIVEN
    as_tensor: TensorArgument = NOT_GIVEN
    as_tensors: list[TensorArgument] = NOT_GIVEN
    as_int: Int = NOT_GIVEN
    as_ints: list[Int] = NOT_GIVEN
    as_float: Float = NOT_GIVEN
    as_floats: list[Float] = NOT_GIVEN
    as_string: Words = NOT_GIVEN
    as_sym_int: SymIntArgument = NOT_GIVEN
    as_sym_ints: list[SymIntArgument] = NOT_GIVEN
    as_scalar_type: ScalarType = NOT_GIVEN
    as_memory_format: MemoryFormat = NOT_GIVEN
    as_layout: Strided = NOT_GIVEN
    as_device: Device = NOT_GIVEN
    as_bool: bool = NOT_GIVEN
    as_bools: list[bool] = NOT_GIVEN
    as_sym_bool: SymBoolArgument = NOT_GIVEN
    as_sym_bools: list[SymBoolArgument] = NOT_GIVEN
    as_graph: GraphArgument = NOT_GIVEN
    as_optional_tensors: list[OptionalTensorArgument] = NOT_GIVEN
    as_sym_float: SymFloatArgument = NOT_GIVEN
    as_sym_floats: list[SymFloatArgument] = NOT_GIVEN
    as_optional_tensor: OptionalTensorArgument = NOT_GIVEN
    as_complex: ComplexValue = NOT_GIVEN


class NamedArgument(Record):
    name: Annotated[str, AfterValidator(argument_name)]
    arg: Argument
    kind: Literal[1, 2] | None = None


# -- graphs ----------------------------------------------------------------------------------------


class Node(Record):
    """An operator and what it is given.

    One on sizes is worked out by Python, exactly, whenever the program runs.
    """

    target: Annotated[str, AfterValidator(operator)]
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: Empty
    is_hop_single_tensor_return: bool | None = None
    name: Identifier | None = None

    def bits(self, known: Mapping[str, int]) -> int:
        """Bits that its result may have as an integer, given those of sizes; 64 from tensors."""
        operands = [_bits(argument.arg, known) for argument in self.inputs] or [0]
        if self.target == "_operator.mul":
            return sum(operands)
        if self.target == "_operator.pow":
            power = self.inputs[-1].arg.as_int
            if type(power) is not int or not 0 <= power <= MAX_POWER:
                raise ValueError(f"a size to a power that is no number up to {MAX_POWER}")
            return operands[0] * power
        return 64 if self.target.startswith("torch.ops.") else max(operands) + 1


def _sizes(arguments: list[Argument]) -> list[str]:
    """The names of those that are sizes."""
    return [a.as_sym_int.as_name for a in arguments if a.as_sym_int is not None]


def _bits(argument: Argument, known: Mapping[str, int]) -> int:
    size = argument.as_sym_int
    return known.get(size.as_name, 64) if size is not None else 64


class Graph(Record):
    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[Identifier, TensorMeta]
    sym_int_values: dict[Identifier, SymInt]
    sym_bool_values: dict[Identifier, SymBool]
    is_single_tensor_return: bool = False
    custom_obj_values: Empty
    sym_float_values: dict[Identifier, SymFloat]

    @model_validator(mode="after")
    def _sizes_stay_small(self) -> Self:
        known = dict.fromkeys(_sizes(self.inputs), MAX_PASSED_BITS)
        for node in self.nodes:
            bits = node.bits(known)
            given = [argument.arg for argument in node.inputs]
            has_graph = any(argument.as_graph is not None for argument in given)
            passed = max((_bits(argument, known) for argument in given), default=0)
            if bits > MAX_BITS or (has_graph and passed > MAX_PASSED_BITS):
                raise ValueError("multiplies sizes until they are too large")
            known |= dict.fromkeys(_sizes(node.outputs), bits)
        return self


class UserSpec(Record):
    arg: Argument


class ParameterSpec(Record):
    arg: TensorArgument
    parameter_name: WeightPath


class BufferSpec(Record):
    arg: TensorArgument
    buffer_name: WeightPath
    persistent: bool


class TensorConstantSpec(Record):
    arg: TensorArgument
    tensor_constant_name: WeightPath


class InputSpec(Choice):
    user_input: UserSpec = NOT_GIVEN
    parameter: ParameterSpec = NOT_GIVEN
    buffer: BufferSpec = NOT_GIVEN
    tensor_constant: TensorConstantSpec = NOT_GIVEN


class BufferMutationSpec(Record):
    arg: TensorArgument
    buffer_name: WeightPath


class ParameterMutationSpec(Record):
    arg: TensorArgument
    parameter_name: WeightPath


class InputMutationSpec(Record):
    arg: TensorArgument
    user_input_name: Identifier


class OutputSpec(Choice):
    user_output: UserSpec = NOT_GIVEN
    buffer_mutation: BufferMutationSpec = NOT_GIVEN
    user_input_mutation: InputMutationSpec = NOT_GIVEN
    parameter_mutation: ParameterMutationSpec = NOT_GIVEN


class GraphSignature(Record):
    input_specs: list[InputSpec]
    output_specs: list[OutputSpec]


# -- the program -----------------------------------------------------------------------------------


class ModuleCallSignature(Record):
    inputs: Annotated[list[Argument], Field(max_length=0)]
    outputs: Annotated[list[Argument], Field(max_length=0)]
    in_spec: Annotated[str, AfterValidator(input_tree)]
    out_spec: Annotated[str, AfterValidator(output_tree)]
    forward_arg_names: list[Identifier] | None = None


class ModuleCallEntry(Record):
    fqn: Annotated[str, AfterValidator(module_path)]
    signature: ModuleCallSignature | None = None


class GraphModule(Record):
    graph: Graph
    signature: GraphSignature
    module_call_graph: list[ModuleCallEntry]
    metadata: Empty
    treespec_namedtuple_fields: Empty

    @model_validator(mode="after")
    def _called_as_it_says(self) -> Self:
        match [entry for entry in self.module_call_graph if not entry.fqn or entry.signature]:
            case [ModuleCallEntry(fqn="", signature=ModuleCallSignature() as called)]:
                pass
            case _:
                raise ValueError("the whole model has a signature, and nothing else has")
        inputs = sum(spec.user_input is not None for spec in self.signature.input_specs)
        outputs = sum(spec.user_output is not None for spec in self.signature.output_specs)
        names = called.forward_arg_names
        if leaves(called.in_spec) != inputs or (names is not None and len(names) != inputs):
            raise ValueError("it takes other inputs than it says")
        if leaves(called.out_spec) != outputs:
            raise ValueError("it returns other outputs than it says")
        return self


class RangeConstraint(Record):
    min_val: Int | None
    max_val: Int | None


class SchemaVersion(Record):
    major: Count
    minor: Count


class Program(Record):
    """``models/model.json``."""

    graph_module: GraphModule
    opset_version: dict[Literal["aten"], Count]
    range_constraints: dict[Symbol, RangeConstraint]
    schema_version: SchemaVersion
    verifiers: Annotated[list[Literal["TRAINING", "ATEN"]], Field(max_length=1)]
    torch_version: Words
    guards_code: Annotated[list[str], Field(max_length=0)]


class PayloadMeta(Record):
    path_name: Annotated[str, Field(pattern=r"^(weight|tensor)_[0-9]{1,9}$")]
    is_param: bool
    use_pickle: Literal[False]
    tensor_meta: TensorMeta


class PayloadConfig(Record):
    """``data/weights/model_weights_config.json`` and the like: tensors by path, one per member."""

    config: dict[WeightPath, PayloadMeta]
