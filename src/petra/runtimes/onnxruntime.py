"""ONNX Runtime on the CPU: one self-contained ``.onnx`` file with a dynamic batch dimension.

Past 2 GB its weights are in a second file. ONNX Runtime and OpenVINO refuse a model whose weights lie outside its
directory, by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from petra.core.errors import ArtifactError
from petra.runtimes.base import Arrays, InputSpec, Runtime, Session, does_not_run, files_of, first_line, must_exist

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
        must_exist(path, OnnxRuntime.suffix)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _load_errors() as error:
            raise ArtifactError(
                f"{path}: ONNX Runtime cannot load this file: {first_line(error)}",
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
        arrays = self.in_order(inputs)
        try:
            values = self._session.run(self._outputs, dict(zip(self._inputs, arrays, strict=True)))
        except _run_errors() as error:
            raise does_not_run("ONNX Runtime", self.input_names, arrays, error) from error
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


class OnnxRuntime(Runtime):
    """The default target. Static int8 models run in integer kernels (QLinearConv, QGemm) on any x86 or Arm CPU."""

    name: ClassVar[str] = "onnxruntime"
    suffix: ClassVar[str] = ".onnx"

    def export(self, model: nn.Module, example: Inputs, path: Path) -> list[Path]:
        from petra.runtimes.onnx_export import export_onnx

        return files_of(export_onnx(model, example, path))

    def load(self, path: Path, *, threads: int) -> Session:
        return OnnxSession(path, threads=threads)

    def version(self) -> str:
        try:
            return metadata.version("onnxruntime")
        except metadata.PackageNotFoundError:
            return ""
