"""LiteRT (TensorFlow Lite), the runtime of phones: one ``.tflite`` flatbuffer, without code.

litert-torch writes it; running it takes ai-edge-litert and NumPy. A file takes one batch size, the
target's: the converter writes no free ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from petra.core.errors import ArtifactError, ExportError, MissingExtra
from petra.core.kernels import Kernels
from petra.core.profile import NotProfiled, Profile
from petra.runtimes.base import (
    Arrays,
    InputSpec,
    LoadedModel,
    Operators,
    Runtime,
    counted,
    distribution_version,
    does_not_run,
    error_line,
    in_calls,
    must_exist,
    zeros,
)

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule

    from petra.core.interface import Interface
    from petra.tasks.inputs import Inputs

_Placed = list[tuple[int, InputSpec]]  # tensors, and where the interpreter has them
_SIGNATURE = "serving_default"
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "TRANSPOSE_CONV", "FULLY_CONNECTED")


class LoadedLiteRt(LoadedModel):
    """An interpreter with its default kernels (XNNPACK) and a fixed number of threads.

    Items are run in calls of as many as the file takes, the last of them filled up with copies.
    Integers of another width than the file's are converted, floats are not.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        self._interpreter = _interpreter(path, threads)
        inputs, outputs = _tensors(self._interpreter)
        self._places = [index for index, _ in inputs]
        self._results = {spec.name: index for index, spec in outputs}
        super().__init__(*(tuple(s for _, s in each) for each in (inputs, outputs)))
        firsts = {spec.shape[0] if spec.shape else None for spec in self.inputs}
        self._batch = firsts.pop() if len(firsts) == 1 else None

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        arrays = self.in_order(inputs)
        try:
            feed = [
                a.astype(spec.dtype) if a.dtype.kind == "i" and spec.dtype.startswith("int") else a
                for a, spec in zip(arrays, self.inputs, strict=True)
            ]
            return in_calls(self._call, feed, self._batch) if self._batch else self._call(feed)
        except (ValueError, RuntimeError, IndexError, TypeError) as error:
            raise does_not_run("LiteRT", self.input_names, arrays, error) from error

    def _call(self, feed: Sequence[np.ndarray]) -> Arrays:
        if self._batch is None:  # sizes are free
            for place, array in zip(self._places, feed, strict=True):
                self._interpreter.resize_tensor_input(place, array.shape, strict=True)
            self._interpreter.allocate_tensors()
        for place, array in zip(self._places, feed, strict=True):
            self._interpreter.set_tensor(place, array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(i) for name, i in self._results.items()}


def _interpreter(path: Path, threads: int, *, plain: bool = False) -> Any:
    """A loaded file. plain: without the kernels that hide its operators."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise MissingExtra("ai-edge-litert", extra="litert") from None
    must_exist(path, LiteRt.suffix)
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else OpResolverType.AUTO
    try:
        found = Interpreter(str(path), num_threads=threads, experimental_op_resolver_type=kernels)
        found.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: LiteRT cannot load this file: {error_line(error)}",
            hint="export it again if it is corrupt, else for a runtime that has the operator",
        ) from error
    return found


def _tensors(interpreter: Any) -> tuple[_Placed, _Placed]:
    """Inputs and outputs by their names in the first signature, where there is one."""
    signatures = interpreter.get_signature_list()
    names: dict[int, str] = {}
    if signatures:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        for details in (runner.get_input_details(), runner.get_output_details()):
            names |= {tensor["index"]: name for name, tensor in details.items()}

    def spec(tensor: Mapping[str, Any]) -> tuple[int, InputSpec]:
        shape = tuple(int(s) if s >= 0 else None for s in tensor["shape_signature"])
        name = names.get(tensor["index"], tensor["name"])
        return tensor["index"], InputSpec(name, np.dtype(tensor["dtype"]).name, shape)

    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    return [spec(tensor) for tensor in inputs], [spec(tensor) for tensor in outputs]


class LiteRt(Runtime):
    """Google's runtime for phones and small devices. Static int8 models run in integer kernels,
    activations and weights with all 256 codes; dynamic ones quantize each item on the spot.
    """

    name: ClassVar[str] = "litert"
    suffix: ClassVar[str] = ".tflite"
    libraries: ClassVar[tuple[str, ...]] = ("ai-edge-litert", "litert-torch")

    @property
    def kernels(self) -> Kernels:
        return Kernels(
            activations=(-128, 127),
            largest_weight=127,  # its kernels add products in 32 bits
            weight_bits=(8,),
            arithmetic=frozenset({"add", "mul", "mean"}),
            same_range=frozenset({"avg_pool2d"}),
            clips=frozenset({(0.0, None), (0.0, 6.0), (-1.0, 1.0)}),
            float_results=False,
        )

    @property
    def fixed_batch(self) -> int:
        return self.target.batch

    def export(
        self, model: nn.Module, example: Inputs, path: Path, interface: Interface | None = None
    ) -> list[Path]:
        if interface and interface.lengths:
            raise ExportError(
                "LiteRT files take items of one length, and this data has several",
                hint="pad them all to one length, or choose another runtime",
            )
        content = _converted(model, example, self.fixed_batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            _interpreter(path, 1)
        except ArtifactError as error:  # with an operator that it has no kernel for
            path.unlink()
            raise ExportError(error.message.removeprefix(f"{path}: ")) from error
        return [path]

    def load(self, path: Path) -> LoadedModel:
        return LoadedLiteRt(path, threads=self.target.threads)

    def snippet(self, file: str, inputs: Sequence[InputSpec]) -> str:
        return "\n".join(
            [
                "import numpy as np",
                "from ai_edge_litert.interpreter import Interpreter",
                f"threads = {self.target.threads}  # as it was measured",
                f"interpreter = Interpreter({json.dumps(file)}, num_threads=threads)",
                "model = interpreter.get_signature_runner()",
                "outputs = model(**{",
                *zeros(inputs),
                "})  # batches of this size",
            ]
        )

    def operators(self, path: Path) -> Operators:
        nodes = _interpreter(path, 1, plain=True)._get_ops_details()
        found = counted(node["op_name"] for node in nodes)
        work = [node for node in nodes if node["op_name"] in (*_PRODUCTS, "BATCH_MATMUL")]
        integer = sum(node["operand_types"][1] is np.int8 for node in work)
        return Operators(found, found, len(work), integer)

    def profile(self, path: Path, inputs: Arrays, calls: int) -> Profile:
        raise NotProfiled(
            "LiteRT's Python interface has no operator profiler",
            hint="its C++ tool has: benchmark_model --graph=FILE --enable_op_profiling=true",
        )

    def lacks(self) -> str:
        return "" if self.version() else "not installed: pip install 'petra[litert]'"


def _converted(model: nn.Module, example: Inputs, batch: int) -> bytes:
    """The file of a model for calls of `batch` items, in float32 but for what is codes."""
    import torch

    from petra.model.layers.half import half_dtype, widened
    from petra.runtimes.free_sizes import traced_example
    from petra.runtimes.named_program import blamed_operator, named_program
    from petra.runtimes.quiet import quiet
    from petra.runtimes.torch_codes import spell_codes
    from petra.tasks.inputs import map_inputs, named

    if not distribution_version("litert-torch"):
        raise MissingExtra("litert-torch", extra="litert")
    whole = model if half_dtype(model) is None else widened(model)
    program, outputs = named_program(whole, traced_example(example))
    graph: Any = program.module(check_guards=False)
    dynamic = spell_codes(graph)
    graph = torch.fx.GraphModule(graph, graph.graph)
    items = map_inputs(example, lambda t: t[torch.arange(batch) % len(t)])
    try:
        with quiet():
            content = _flatbuffer(graph, items, list(named(example)), outputs)
            return _quantizing_inputs(content) if dynamic else content
    except Exception as error:  # of the converter, which has no type for them
        operator = blamed_operator(error)
        raise ExportError(
            f"{operator or 'an operator'} has no translation to LiteRT: {error_line(error)}",
            operator=operator,
            hint="express it with standard operators, or choose another runtime",
        ) from error


class _Forgetful(dict[Any, Any]):
    """No cache: litert-torch knows constants by their address, which others may have later."""

    def get(self, key: Any, default: Any = None) -> Any:
        return default


def _flatbuffer(graph: GraphModule, items: Inputs, inputs: list[str], outputs: list[str]) -> bytes:
    """litert-torch's conversion in its steps. Its own function takes no names, and cannot be asked
    for strict quantization: codes where the graph has them, inputs and outputs in float.
    """
    from litert_converter.mlir import passmanager
    from litert_converter.mlir._mlir_libs import converter_api_ext as converter
    from litert_torch._convert import core, signature
    from litert_torch.backend import export, export_utils
    from litert_torch.backend.inline_consts import InlineConstsContext

    called = signature.Signature(_SIGNATURE, graph, (items,), None)
    program = core._run_convert_passes(core.export_torch_signature(called))
    context = export_utils.create_ir_context()
    lowered = export.exported_program_to_mlir(
        program,
        ir_context=context,
        lowering_context_plugins=[InlineConstsContext(constant_cache=_Forgetful())],
    )
    named = {"input_names": inputs, "output_names": outputs}
    converter.set_signature(lowered.module.operation, signature_name=_SIGNATURE, **named)
    module = converter.merge_modules([lowered.module])
    config = converter.ConvertToTFLConfig()
    config.model_origin_framework = "PYTORCH"
    config.strict_qdq_mode = True
    config.canonicalizing_inf_as_min_max_float = False
    with context:
        converter.run_convert_to_tfl_passes(module, passmanager.PassManager(), config)
    return bytes(converter.export_flatbuffer_to_bytes(getattr(module, "operation", module)))


def _quantizing_inputs(content: bytes) -> bytes:
    """The file with linear layers that read their codes themselves, not through a dequantize, and
    quantize their float inputs on the spot: affine, each item's rows on their own.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils as files

    model = files.read_model_from_bytearray(bytearray(content))
    kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    (graph,) = model.subgraphs
    of_kind = {op: kinds[op.opcodeIndex] for op in graph.operators}
    decoded = {
        op.outputs[0]: op.inputs[0]
        for op, kind in of_kind.items()
        if kind == schema.BuiltinOperator.DEQUANTIZE
    }
    for op, kind in of_kind.items():
        if kind == schema.BuiltinOperator.FULLY_CONNECTED and op.inputs[1] in decoded:
            op.inputs[1] = decoded[op.inputs[1]]
            op.builtinOptions.asymmetricQuantizeInputs = True
    read = {place for op in graph.operators for place in op.inputs} | {*graph.outputs}
    graph.operators = [
        op
        for op, kind in of_kind.items()
        if kind != schema.BuiltinOperator.DEQUANTIZE or op.outputs[0] in read
    ]
    return bytes(files.convert_object_to_bytearray(model))
