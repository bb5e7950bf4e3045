"""The runtime contract: a model is deployable only as files that a runtime can load and run on its
own.

Nothing at module level here, or in a runtime's file, imports torch: the measuring process loads
sessions without it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from petra.core.errors import ArtifactError, PetraError
from petra.core.kernels import USUAL, Kernels
from petra.core.profile import NotProfiled, Profile
from petra.core.target import Target
from petra.space.domains import Domain

if TYPE_CHECKING:
    from torch import nn

    from petra.core.interface import Interface, TensorSpec
    from petra.tasks.inputs import Inputs

Arrays = dict[str, np.ndarray]


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


@dataclass(frozen=True)
class Operators:
    """Nodes of a model by operator: `stored` as in the file, `running` after this machine's graph
    optimisation.

    Of the nodes that run, `compute` do the arithmetic (convolutions, matrix products, recurrences),
    `integer` of them with quantized operands.
    """

    stored: Mapping[str, int]
    running: Mapping[str, int]
    compute: int
    integer: int


def counted(names: Iterable[str]) -> dict[str, int]:
    """How often each name comes, the most frequent first."""
    return dict(sorted(Counter(names).items(), key=lambda pair: (-pair[1], pair[0])))


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


class LoadedModel(ABC):
    """A loaded artifact: its declared `inputs`, `input_names` in the same order, and its declared
    `outputs`, () where the artifact does not declare any.
    """

    def __init__(self, inputs: tuple[InputSpec, ...], outputs: tuple[InputSpec, ...] = ()) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.input_names = tuple(spec.name for spec in inputs)

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
    """One way to ship a model, as it is used for a `target`: on its device, with its threads. The
    first paragraph of a runtime's docstring is what people are told of it.

    suffix: the file name extension of the artifact's main file. reads: further ones that `load`
    accepts. libraries: the distributions that run artifacts, the one whose version counts first.
    devices: kinds of devices it runs on. options: what a target's options may say to it, and with
    which values.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ()
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    options: ClassVar[Mapping[str, Domain]] = {}

    def __init__(self, target: Target | None = None) -> None:
        self.target = target or Target(self.name)

    @classmethod
    def description(cls) -> str:
        """What it is, for people."""
        return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())

    @property
    def kernels(self) -> Kernels:
        """What it computes in besides float32, on the target's device."""
        return USUAL

    @property
    def fixed_batch(self) -> int | None:
        """The batch that its files take in every call, None where they take any. A session of files
        with a fixed one makes as many calls as the items given to it need.
        """
        return None

    @abstractmethod
    def export(
        self, model: nn.Module, example: Inputs, path: Path, interface: Interface | None = None
    ) -> list[Path]:
        """Lower `model` (in eval mode) to `path`; return all files that ship, the main one first.
        The axes that `interface` leaves free are free in the file, without one the batch alone; of
        a runtime with a `fixed_batch`, the batch is that.

        Raises ExportError naming the operator that cannot be expressed, and MissingExtra when what
        it takes to write the file is not installed.
        """

    @abstractmethod
    def load(self, path: Path) -> LoadedModel:
        """Open an artifact. Runs no code from it. Raises ArtifactError when it is missing or
        corrupt, and RuntimeUnavailable or MissingExtra when this machine cannot run it.
        """

    @abstractmethod
    def snippet(self, file: str, inputs: Sequence[InputSpec]) -> str:
        """A few lines of Python that run `file` on zeros with the runtime's library, and leave what
        it returns in ``outputs``. No torch and no petra, unless the file needs them.
        """

    @classmethod
    def companions(cls, path: Path) -> tuple[Path, ...]:
        """Files beside `path` that may belong to it, which are found by their names."""
        return ()

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """The files of the artifact `path`: itself, and those of its companions that are there."""
        return [path, *(file for file in cls.companions(path) if file.is_file())]

    def declared(
        self, path: Path, session: LoadedModel
    ) -> tuple[tuple[InputSpec, ...], tuple[InputSpec, ...]]:
        """Inputs and outputs of a loaded file, with what it calls their free sizes."""
        return session.inputs, session.outputs

    def operators(self, path: Path) -> Operators | None:
        """What of a file runs how, None where that cannot be told. May cost a session more."""
        return None

    def profile(self, path: Path, inputs: Arrays, calls: int) -> Profile:
        """Where the time of a call on `inputs` goes, as the runtime's own profiler says of `calls`
        calls, after some to warm up. Raises NotProfiled where it has none, or not on this device.
        """
        raise NotProfiled(f"{self.target.name} has no operator profiler that petra can read")

    def version(self) -> str:
        """The runtime library's version, '' when it is not installed."""
        return distribution_version(self.libraries[0]) if self.libraries else ""

    def lacks(self) -> str:
        """What this machine lacks to run artifacts, in a few words; '' when nothing."""
        return "" if self.version() else "not installed"

    def require(self) -> None:
        """Raise RuntimeUnavailable when this machine lacks something."""
        if missing := self.lacks():
            raise RuntimeUnavailable(
                f"the runtime {self.target.name} cannot run here: {missing}",
                hint="see `petra doctor`",
            )


def distribution_version(name: str) -> str:
    """The version of an installed distribution, '' of one that is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def in_calls(
    call: Callable[[Sequence[np.ndarray]], Arrays], arrays: Sequence[np.ndarray], batch: int
) -> Arrays:
    """The outputs of `call`, which takes `batch` items, for any number of them, (n, ...) each: call
    by call, the last one filled up with copies of the last item.
    """
    items = len(arrays[0])
    if items == batch:
        return call(arrays)
    index = np.arange(-(-items // batch) * batch).clip(max=items - 1).reshape(-1, batch)
    found = [call([array[part] for array in arrays]) for part in index]
    return {name: np.concatenate([one[name] for one in found])[:items] for name in found[0]}


def zeros(inputs: Sequence[InputSpec]) -> list[str]:
    """For a snippet: a line for each input that makes zeros of it, between the braces of a
    dictionary.
    """
    return [f"    {json.dumps(i.name)}: np.zeros({_one_item(i)}, np.{i.dtype})," for i in inputs]


def _one_item(spec: InputSpec) -> str:
    sizes = [
        1 if i == 0 and size is None else 16 if size is None else size
        for i, size in enumerate(spec.shape)
    ]
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def error_line(error: BaseException) -> str:
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
    """The error of a session that cannot run on these inputs.

    `said`: the reason, for one that is better hidden.
    """
    shapes = {name: array.shape for name, array in zip(names, arrays, strict=True)}
    return ArtifactError(
        f"{runtime} cannot run the model on inputs of shapes {shapes}: {said or error_line(error)}",
        hint="do the inputs have the shapes and types the file declares?",
    )
