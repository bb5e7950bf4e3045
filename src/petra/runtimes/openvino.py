"""OpenVINO on the CPU: the same lean ``.onnx`` file that ONNX Runtime runs, read by OpenVINO
itself.

OpenVINO's own format is not what ships: for a small int8 network its ``.xml`` alone is larger than
the whole ONNX file. Models in it (``.xml`` with a ``.bin`` beside it) that come from elsewhere can
be loaded and measured, though.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from petra.core.errors import ArtifactError, ExportError, MissingExtra
from petra.core.kernels import Kernels
from petra.core.profile import Profile
from petra.runtimes.base import (
    Arrays,
    InputSpec,
    LoadedModel,
    Runtime,
    does_not_run,
    error_line,
    must_exist,
    zeros,
)
from petra.runtimes.onnx_export import data_beside, export_onnx

if TYPE_CHECKING:
    from torch import nn

    from petra.core.interface import Interface
    from petra.tasks.inputs import Inputs


class LoadedOpenVino(LoadedModel):
    """A model compiled for the CPU: one stream, a fixed number of threads.

    Float arithmetic is in bf16 where the file has weights stored so, and in float32 elsewhere:
    without a hint, OpenVINO computes all float models in bf16 on CPUs that have it, and results
    would differ from machine to machine. Threads are not bound to cores, as in the other runtimes.
    """

    def __init__(self, path: Path, *, threads: int, record: bool = False) -> None:
        """`record`: what every operator takes is kept (`recorded`)."""
        try:
            import openvino
        except ImportError:
            raise MissingExtra("openvino", extra="openvino") from None
        must_exist(path, OpenVino.suffix)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
            **({"PERF_COUNT": True} if record else {}),
        }
        core = openvino.Core()
        try:
            model = core.read_model(path)
            self.precision = settings["INFERENCE_PRECISION_HINT"] = (
                "bf16" if _stores_bf16(model) else "f32"
            )
            compiled = core.compile_model(model, "CPU", settings)
            # Compiled, an input also has the names of casts of it that were taken out.
            super().__init__(
                tuple(map(_spec, compiled.inputs, model.inputs)),
                tuple(map(_spec, compiled.outputs, model.outputs)),
            )
            self._request, self._compiled = compiled.create_infer_request(), compiled
        except RuntimeError as error:
            raise ArtifactError(
                f"{path}: OpenVINO cannot load this file: {_reason(error)}",
                hint=(
                    "export it again if it is corrupt, or for another runtime if OpenVINO lacks an"
                    " operator"
                ),
            ) from error
        _refuse_text((*self.inputs, *self.outputs), path)

    def recorded(self) -> tuple[list[Any], list[Any]]:
        """OpenVINO's records of what ran, and the nodes of its own graph."""
        return self._request.get_profiling_info(), self._compiled.get_runtime_model().get_ops()

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        arrays = self.in_order(inputs)
        feed = [
            _narrow(a) if s.dtype == _BF16 else a for s, a in zip(self.inputs, arrays, strict=True)
        ]
        try:
            outputs = self._request.infer(dict(enumerate(feed)), share_inputs=True)
        except (RuntimeError, ValueError, TypeError) as error:
            raise does_not_run("OpenVINO", self.input_names, arrays, error) from error
        found = zip(self.outputs, (outputs[i] for i in range(len(self.outputs))), strict=True)
        return {spec.name: _widen(array) if spec.dtype == _BF16 else array for spec, array in found}


def _stores_bf16(model: Any) -> bool:
    """Whether any constant of an OpenVINO model is bfloat16."""
    constants = (node for node in model.get_ops() if node.get_type_name() == "Constant")
    return any(node.get_element_type().get_type_name() == "bf16" for node in constants)


_BF16 = "bfloat16"
# OpenVINO's names of element types -> ours.
_DTYPES = {"boolean": "bool", "bf16": _BF16} | {f"f{bits}": f"float{bits}" for bits in (16, 32, 64)}
_DTYPES |= {
    f"{k}{bits}": f"{kind}{bits}"
    for k, kind in (("i", "int"), ("u", "uint"))
    for bits in (8, 16, 32, 64)
}


def _spec(port: Any, named: Any) -> InputSpec:
    """What a port takes or gives, under the name that the file has for it."""
    shape = tuple(
        size.get_length() if size.is_static else None for size in port.get_partial_shape()
    )
    kind = port.get_element_type().get_type_name()
    return InputSpec(named.get_any_name(), _DTYPES.get(kind, kind), shape)


def _refuse_text(specs: Sequence[InputSpec], path: Path) -> None:
    for spec in specs:
        if spec.dtype == "string":
            raise ArtifactError(
                f"{path}: {spec.name!r} is text, and OpenVINO damages its own memory when it is"
                " handed to Python",
                hint="use --runtime onnxruntime",
            )


def _narrow(array: np.ndarray) -> Any:
    """float32 as bfloat16, which NumPy lacks."""
    import ml_dtypes
    import openvino

    bits = array.astype(ml_dtypes.bfloat16).view(np.uint16)
    return openvino.Tensor(bits, array.shape, openvino.Type.bf16)


def _widen(array: np.ndarray) -> np.ndarray:
    """What OpenVINO calls float16 and is bfloat16."""
    import ml_dtypes

    wide: np.ndarray = array.view(ml_dtypes.bfloat16).astype(np.float32)
    return wide


_UNCONVERTED = re.compile(r"-- (\w+)-\d+ with a message:")


def _reason(error: RuntimeError) -> str:
    """OpenVINO's messages begin with where in its sources they were raised; the reason comes after
    that.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [
        line
        for line in lines
        if not line.startswith(("Exception from", "Check ", "src/", "While validating"))
    ]
    for where, line in enumerate(said):
        if found := _UNCONVERTED.match(line):
            why = said[where + 1 : where + 2]
            return f"it cannot convert {found[1]}: {' '.join(why)}"[:300]
    return (said or lines or [error_line(error)])[0][:300]


def takes_lengths(path: Path) -> bool:
    """Whether a recurrent layer of an ONNX file is given the lengths of its items."""
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return any(
        node.op_type in ("GRU", "LSTM") and len(node.input) > 4 and bool(node.input[4])
        for node in nodes
    )


class OpenVino(Runtime):
    """Intel's runtime. Static int8 models run in integer kernels, halved ones in bf16 on CPUs that
    have it; strong at large batches.
    """

    name: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".onnx"
    reads: ClassVar[tuple[str, ...]] = (".xml",)
    libraries: ClassVar[tuple[str, ...]] = ("openvino", "onnx")

    @property
    def kernels(self) -> Kernels:
        return Kernels(precisions=("bf16",), dynamic=False)

    def export(
        self, model: nn.Module, example: Inputs, path: Path, interface: Interface | None = None
    ) -> list[Path]:
        export_onnx(model, example, path, interface)
        if takes_lengths(path):
            for file in self.files(path):
                file.unlink()
            raise ExportError(
                "OpenVINO computes recurrent layers over packed sequences as if all items were of"
                " one length",
                hint="use --runtime onnxruntime or torch, or one direction and a mask instead",
            )
        return self.files(path)

    def load(self, path: Path) -> LoadedModel:
        return LoadedOpenVino(path, threads=self.target.threads)

    def profile(self, path: Path, inputs: Arrays, calls: int) -> Profile:
        from petra.runtimes.openvino_profile import profile_openvino

        load = partial(LoadedOpenVino, threads=self.target.threads)
        return profile_openvino(path, inputs, calls, load)

    def snippet(self, file: str, inputs: Sequence[InputSpec]) -> str:
        threads = self.target.threads
        settings = '{"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}'
        return "\n".join(
            [
                "import numpy as np",
                "import openvino",
                f"settings = {settings}  # bf16 for a model in half precision",
                f'settings["INFERENCE_NUM_THREADS"] = {threads}  # as it was measured',
                f'model = openvino.Core().compile_model({json.dumps(file)}, "CPU", settings)',
                "outputs = model({",
                *zeros(inputs),
                "})  # the first dimension is the batch, of any size",
            ]
        )

    @classmethod
    def companions(cls, path: Path) -> tuple[Path, ...]:
        return (path.with_suffix(".bin") if path.suffix == ".xml" else data_beside(path),)

    def declared(
        self, path: Path, session: LoadedModel
    ) -> tuple[tuple[InputSpec, ...], tuple[InputSpec, ...]]:
        if path.suffix == ".xml":
            return session.inputs, session.outputs
        from petra.runtimes.onnx_inspect import with_names

        return with_names(session.inputs, session.outputs, path)

    def lacks(self) -> str:
        return "" if self.version() else "not installed: pip install 'petra[openvino]'"
