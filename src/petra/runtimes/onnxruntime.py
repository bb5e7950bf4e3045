"""ONNX Runtime on the CPU: one self-contained ``.onnx`` file with a dynamic batch dimension."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from petra.core.errors import ArtifactError
from petra.runtimes.base import Arrays, InputSpec, Runtime, Session

if TYPE_CHECKING:
    from torch import nn

    from petra.tasks.inputs import Inputs


# ONNX Runtime's names of element types, where they are not NumPy's.
_DTYPES = {"float": "float32", "double": "float64"}


class OnnxSession(Session):
    """An ONNX Runtime session with all graph optimisations and a fixed number of threads."""

    def __init__(self, path: Path, *, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file", hint="give the path of an exported .onnx file")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _load_errors() as error:
            raise ArtifactError(
                f"{path}: ONNX Runtime cannot load this file: {_first_line(error)}",
                hint="the file is corrupt or not an ONNX model; export it again",
            ) from error
        self._inputs = {i.name: i for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        specs = []
        for name, value in self._inputs.items():
            dtype = value.type.removeprefix("tensor(").removesuffix(")")
            shape = tuple(size if isinstance(size, int) else None for size in value.shape)
            specs.append(InputSpec(name, _DTYPES.get(dtype, dtype), shape))
        return tuple(specs)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        missing = set(self._inputs) - set(inputs)
        if missing:
            raise ArtifactError(
                f"the artifact wants inputs {sorted(self._inputs)}, got {sorted(inputs)}",
                hint="was it exported from a model with other inputs?",
            )
        try:
            values = self._session.run(self._outputs, {name: inputs[name] for name in self._inputs})
        except _run_errors() as error:
            shapes = {name: inputs[name].shape for name in self._inputs}
            raise ArtifactError(
                f"ONNX Runtime cannot run the model on inputs of shapes {shapes}: {_first_line(error)}",
                hint="do the inputs have the shapes and types the file declares?",
            ) from error
        return dict(zip(self._outputs, values, strict=True))


def _load_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        *(state.Fail, state.InvalidArgument, state.InvalidProtobuf, state.InvalidGraph, state.NoSuchFile),
        *(state.NotImplemented, RuntimeError),
    )


def _run_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidArgument, state.RuntimeException)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


class OnnxRuntime(Runtime):
    """The default target. Static int8 models run in integer kernels (QLinearConv, QGemm) on any x86 or Arm CPU."""

    name: ClassVar[str] = "onnxruntime"
    suffix: ClassVar[str] = ".onnx"

    def export(self, model: nn.Module, example: Inputs, path: Path) -> list[Path]:
        from petra.runtimes.onnx_export import export_onnx

        return [export_onnx(model, example, path)]

    def load(self, path: Path, *, threads: int) -> Session:
        return OnnxSession(path, threads=threads)

    def version(self) -> str:
        try:
            return metadata.version("onnxruntime")
        except metadata.PackageNotFoundError:
            return ""
