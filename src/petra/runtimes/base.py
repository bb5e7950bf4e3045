"""The runtime contract: a model is deployable only as files that a runtime can load and run on its own.

Nothing at module level here, or in a runtime's file, imports torch: the measuring process loads sessions without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from petra.tasks.inputs import Inputs

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Target:
    """Where the model will run. `batch` is the latency batch, `throughput_batch` the one for items per second."""

    runtime: str = "onnxruntime"
    threads: int = 1
    batch: int = 1
    throughput_batch: int = 64


@dataclass(frozen=True)
class InputSpec:
    """What an artifact declares of one input: a NumPy dtype name, and the shape with None where a size is free.

    The first dimension is the batch.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Session(ABC):
    """A loaded artifact."""

    @property
    @abstractmethod
    def input_names(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def inputs(self) -> tuple[InputSpec, ...]:
        """The declared inputs, in the order of `input_names`."""

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Outputs by name, batch first. Raises ArtifactError when the inputs do not fit."""


class Runtime(ABC):
    """One way to ship a model. `suffix` is the file name extension of the artifact's main file."""

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def export(self, model: nn.Module, example: Inputs, path: Path) -> list[Path]:
        """Lower `model` (in eval mode) to `path` with a dynamic batch dimension; return all files that ship.

        Raises ExportError naming the operator that cannot be expressed.
        """

    @abstractmethod
    def load(self, path: Path, *, threads: int) -> Session:
        """Open an artifact. Runs no code from it. Raises ArtifactError when it is missing or corrupt."""

    @abstractmethod
    def version(self) -> str:
        """The runtime library's version, '' when it is not installed."""
