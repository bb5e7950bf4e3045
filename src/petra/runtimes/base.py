"""The runtime contract: a model is deployable only as files that a runtime can load and run on its
own.

Nothing at module level here, or in a runtime's file, imports torch: the measuring process loads
sessions without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from petra.core.errors import ArtifactError, PetraError

if TYPE_CHECKING:
    from torch import nn

    from petra.core.interface import Interface, TensorSpec
    from petra.tasks.inputs import Inputs

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Target:
    """Where the model will run. `batch` is the latency batch, `throughput_batch` the one for items
    per second.
    """

    runtime: str = "onnxruntime"
    threads: int = 1
    batch: int = 1
    throughput_batch: int = 64


@dataclass(frozen=True)
class InputSpec:
    """What an artifact declares of one input or output: a type, and the shape with None where a
    size is free.

    The type is NumPy's name of it, "bfloat16" (which travels as float32), "string", or what the
    file calls it when NumPy has no such thing. `names` are those that the file gives to the sizes,
    '' where it gives none; () where the runtime does not tell. In what petra exports, the first
    dimension is the batch.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    names: tuple[str, ...] = ()


_NUMBERS = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
_ARRAYS = {
    name: name for name in (*_NUMBERS, "float16", "float32", "float64", "complex64", "complex128")
}
_ARRAYS |= {"bfloat16": "float32", "string": "str"}


def numpy_type(spec: InputSpec | TensorSpec) -> np.dtype:
    """The type of the arrays that an input is fed with. Raises ArtifactError when it takes none."""
    if spec.dtype not in _ARRAYS:
        raise ArtifactError(
            f"input {spec.name!r} is of type {spec.dtype}, and petra feeds arrays of NumPy's types",
            hint=(
                "let the model take tensors of a common type, and make the others of them inside it"
            ),
        )
    return np.dtype(_ARRAYS[spec.dtype])


class RuntimeUnavailable(PetraError):
    """This machine lacks something a runtime needs: a library, a compiler, a GPU."""


class Session(ABC):
    """A loaded artifact."""

    @property
    @abstractmethod
    def input_names(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def inputs(self) -> tuple[InputSpec, ...]:
        """The declared inputs, in the order of `input_names`."""

    @property
    def outputs(self) -> tuple[InputSpec, ...]:
        """The declared outputs, () where the artifact does not declare any."""
        return ()

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Outputs by name, batch first. Raises ArtifactError when the inputs do not fit.

        Arrays go in and come out in the host's memory, and the outputs are complete when it
        returns: on a GPU, the transfers are part of a run.
        """

    def in_order(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays in the order of `input_names`. Raises ArtifactError when one is missing."""
        try:
            return [inputs[name] for name in self.input_names]
        except KeyError:
            raise ArtifactError(
                f"the artifact wants inputs {sorted(self.input_names)}, got {sorted(inputs)}",
                hint="was it exported from a model with other inputs?",
            ) from None


class Runtime(ABC):
    """One way to ship a model.

    `suffix` is the file name extension of the artifact's main file, `reads` are further ones that
    `load` accepts.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[tuple[str, ...]] = ()
    """What it has kernels for besides float32 and the integers of quantized graphs: bf16, fp16, and
    for linear layers int8 or float8. Parameters of scope "precision" are drawn from these.
    """

    @abstractmethod
    def export(
        self, model: nn.Module, example: Inputs, path: Path, interface: Interface | None = None
    ) -> list[Path]:
        """Lower `model` (in eval mode) to `path`; return all files that ship. The axes that
        `interface` leaves free are free in the file; without one, the batch alone.

        Raises ExportError naming the operator that cannot be expressed.
        """

    @abstractmethod
    def load(self, path: Path, *, threads: int) -> Session:
        """Open an artifact. Runs no code from it. Raises ArtifactError when it is missing or
        corrupt, and RuntimeUnavailable or MissingExtra when this machine cannot run it.
        """

    @abstractmethod
    def version(self) -> str:
        """The runtime library's version, '' when it is not installed."""

    def lacks(self) -> str:
        """What this machine lacks to run artifacts, in a few words; '' when nothing."""
        return "" if self.version() else "not installed"

    def require(self) -> None:
        """Raise RuntimeUnavailable when this machine lacks something."""
        if missing := self.lacks():
            raise RuntimeUnavailable(
                f"the runtime {self.name} cannot run here: {missing}", hint="see `petra doctor`"
            )


def data_beside(path: Path) -> Path:
    """Where the weights of an ONNX model are that are too large for its own file. The model finds
    them by this name.
    """
    return path.with_name(f"{path.name}.data")


def files_of(path: Path) -> list[Path]:
    """The files of the artifact `path`: itself, and the one beside it with its weights where there
    is one.
    """
    weights = path.with_suffix(".bin") if path.suffix == ".xml" else data_beside(path)
    return [path, weights] if weights.is_file() else [path]


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, at most 300 characters; its type when
    none does.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:300]


def must_exist(path: Path, suffix: str) -> None:
    """Raise ArtifactError unless `path` is a file."""
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no such file", hint=f"give the path of an exported {suffix} file"
        )


def does_not_run(
    runtime: str,
    names: tuple[str, ...],
    arrays: list[np.ndarray],
    error: BaseException,
    *,
    said: str = "",
) -> ArtifactError:
    """The error of a session that cannot run on these inputs. `said`: the reason, for one that is
    better hidden.
    """
    shapes = {name: array.shape for name, array in zip(names, arrays, strict=True)}
    return ArtifactError(
        f"{runtime} cannot run the model on inputs of shapes {shapes}: {said or first_line(error)}",
        hint="do the inputs have the shapes and types the file declares?",
    )
