"""ONNX Runtime on the CPU: one self-contained ``.onnx`` file with a dynamic batch dimension.

Past 2 GB its weights are in a second file. ONNX Runtime and OpenVINO refuse a model whose weights
lie outside its directory, by themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from petra.core.errors import ArtifactError
from petra.core.kernels import Kernels
from petra.core.profile import Profile
from petra.runtimes.base import (
    Arrays,
    InputSpec,
    LoadedModel,
    Operators,
    Runtime,
    does_not_run,
    must_exist,
    zeros,
)
from petra.runtimes.onnx_export import data_beside, export_onnx
from petra.space.domains import Choice, Domain

if TYPE_CHECKING:
    from torch import nn

    from petra.core.interface import Interface
    from petra.tasks.inputs import Inputs


# ONNX Runtime's names of element types, where they are not NumPy's.
_DTYPES = {"float": "float32", "double": "float64"}
# Come back as no NumPy array.
_LOST = (
    "bfloat16",
    "float8",
    "int4",
    "uint4",
    "float4",
    "int2",
    "uint2",
)
_REMEDIES = {
    "external data": (
        "its weights are in a second file, which it finds by name: copy that one beside it"
    ),
    "missing opset": "it does not say which operators it means: its opset_import is empty",
    "opset": "it asks for operators of another version: convert it with onnx.version_converter",
    "ir version": (
        "it is newer than this ONNX Runtime: install a newer one, or export it for an older"
    ),
    "not implemented": "this operator does not run on a CPU here: try --runtime openvino",
    "not_implemented": "this operator does not run on a CPU here: try --runtime openvino",
    "is not a registered": "it needs operators that come with neither ONNX nor ONNX Runtime",
}
_ORIGIN = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .{0,1000}?"
    r" failed:|/\S*onnxruntime\S*/\S+:\d+ "
)


class LoadedOnnx(LoadedModel):
    """An ONNX Runtime session with all graph optimisations and a fixed number of threads.

    Sequences and maps among the outputs become arrays: see `flat`.
    """

    def __init__(
        self, path: Path, *, threads: int, spinning: bool = True, record: Path | None = None
    ) -> None:
        """`spinning`: threads wait for work by turning in circles, not asleep. `record`: what
        every operator takes is written to a file whose name begins so (`recorded`).
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        if record is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(record)
        must_exist(path, OnnxRuntime.suffix)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except _errors() as error:
            said = reason(error)
            raise ArtifactError(
                f"{path}: ONNX Runtime cannot load this file: {said}",
                hint=_remedy(said, str(error)),
            ) from error
        super().__init__(
            tuple(_spec(value) for value in self._session.get_inputs()),
            tuple(_spec(value) for value in self._session.get_outputs()),
        )
        self._wanted = [spec.name for spec in self.outputs]
        self._wide = any(spec.dtype == "bfloat16" for spec in self.inputs)
        if not self.outputs:
            raise ArtifactError(
                f"{path}: it has no outputs", hint="name some when the model is exported"
            )
        for spec in self.outputs:
            if spec.dtype.startswith(_LOST):
                raise ArtifactError(
                    f"{path}: output {spec.name!r} is {spec.dtype}, which ONNX Runtime cannot hand"
                    " to NumPy",
                    hint="end the model with a cast to float32",
                )

    def recorded(self) -> Path:
        """The record of all calls, which ends here."""
        return Path(self._session.end_profiling())

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        arrays = self.in_order(inputs)
        feed = dict(zip(self.input_names, arrays, strict=True))
        try:
            values = self._run_wide(feed) if self._wide else self._session.run(self._wanted, feed)
        except _errors() as error:
            raise does_not_run(
                "ONNX Runtime", self.input_names, arrays, error, said=reason(error)
            ) from error
        found = dict(zip(self._wanted, values, strict=True))
        return found if all(isinstance(v, np.ndarray) for v in values) else flat(found)

    def _run_wide(self, feed: Arrays) -> list[object]:
        """With inputs of a type that NumPy lacks, and float32 stands for."""
        import ml_dtypes
        from onnx import TensorProto
        from onnxruntime import OrtValue

        values = {name: OrtValue.ortvalue_from_numpy(array) for name, array in feed.items()}
        for spec in self.inputs:
            if spec.dtype == "bfloat16":
                bits = feed[spec.name].astype(ml_dtypes.bfloat16).view(np.uint16)
                values[spec.name] = OrtValue.ortvalue_from_numpy_with_onnx_type(
                    bits, TensorProto.BFLOAT16
                )
        return [value.numpy() for value in self._session.run_with_ort_values(self._wanted, values)]


def _spec(value: Any) -> InputSpec:
    """What a session says of an input or output. An optional tensor is one that is given."""
    kind: str = value.type
    kind = (
        kind.removeprefix("optional(").removesuffix(")")
        if kind.startswith("optional(tensor(")
        else kind
    )
    plain = kind.removeprefix("tensor(").removesuffix(")") if kind.startswith("tensor(") else kind
    return InputSpec(
        value.name,
        _DTYPES.get(plain, plain),
        tuple(size if isinstance(size, int) else None for size in value.shape),
        tuple(size if isinstance(size, str) else "" for size in value.shape),
    )


def flat(outputs: Mapping[str, object]) -> Arrays:
    """Outputs as arrays. What a sequence holds is counted through, ``name[0]``; maps become rows of
    their values.

    A sequence of maps, one for each item, is what scikit-learn's classifiers return: (n, classes)
    here. An optional output that is absent is left out.
    """
    found: Arrays = {}
    for name, value in outputs.items():
        if isinstance(value, np.ndarray):
            found[name] = value
        elif isinstance(value, dict):
            found[name] = np.array(list(value.values()))
        elif (
            isinstance(value, list)
            and value
            and all(isinstance(v, dict) and v.keys() == value[0].keys() for v in value)
        ):
            found[name] = np.array([list(v.values()) for v in value])
        elif isinstance(value, list):
            found |= flat({f"{name}[{i}]": v for i, v in enumerate(value)})
        elif value is not None:
            found[name] = np.array(value)
    return found


def reason(error: BaseException) -> str:
    """ONNX Runtime's messages begin with where in its sources they were raised; the reason comes
    after that.
    """
    text = " ".join(str(error).split())
    said = ""
    while found := _ORIGIN.search(text):
        said, text = said + text[: found.start()], text[found.end() :]
        if found[0].startswith("/"):
            text = _after_signature(text)
    return (said + text).strip()[:300] or type(error).__name__


def _after_signature(text: str) -> str:
    """What follows the declaration of a C++ function."""
    depth = 0
    for where, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth == 0 and text[where + 1 : where + 2] != ":":
            return text[where + 1 :].strip().removeprefix("const ").strip()
    return text


def _remedy(said: str, whole: str) -> str:
    for words, remedy in _REMEDIES.items():
        if words in f"{said} {whole}".lower():
            return remedy
    return "the file is corrupt or not an ONNX model; export it again"


def _errors() -> tuple[type[Exception], ...]:
    """All that ONNX Runtime raises for a model or for inputs, in loading and running."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (
        item
        for item in vars(state).values()
        if isinstance(item, type) and issubclass(item, Exception)
    )
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


class OnnxRuntime(Runtime):
    """The default target. Static int8 models run in integer kernels (QLinearConv, QGemm) on any x86
    or Arm CPU.
    """

    name: ClassVar[str] = "onnxruntime"
    suffix: ClassVar[str] = ".onnx"

    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    options: ClassVar[Mapping[str, Domain]] = {"spinning": Choice((True, False))}

    @property
    def kernels(self) -> Kernels:
        return Kernels(recurrent=frozenset({"LSTM"}))

    def export(
        self, model: nn.Module, example: Inputs, path: Path, interface: Interface | None = None
    ) -> list[Path]:
        return self.files(export_onnx(model, example, path, interface))

    def load(self, path: Path) -> LoadedModel:
        return LoadedOnnx(path, threads=self.target.threads, **self.target.options)

    def profile(self, path: Path, inputs: Arrays, calls: int) -> Profile:
        from petra.runtimes.onnx_profile import profile_onnx

        load = partial(LoadedOnnx, threads=self.target.threads, **self.target.options)
        return profile_onnx(path, inputs, calls, load)

    def snippet(self, file: str, inputs: Sequence[InputSpec]) -> str:
        return "\n".join(
            [
                "import numpy as np",
                "import onnxruntime",
                "options = onnxruntime.SessionOptions()",
                f"options.intra_op_num_threads = {self.target.threads}  # as it was measured",
                f"session = onnxruntime.InferenceSession({json.dumps(file)}, options)",
                "outputs = session.run(None, {",
                *zeros(inputs),
                "})  # the first dimension is the batch, of any size",
            ]
        )

    @classmethod
    def companions(cls, path: Path) -> tuple[Path, ...]:
        return (data_beside(path),)

    def operators(self, path: Path) -> Operators:
        from petra.runtimes.onnx_inspect import count_operators

        return count_operators(path)
