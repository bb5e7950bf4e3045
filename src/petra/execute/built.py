"""What a builder hands over: files by name and hash, wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from petra.core.digest import sha256
from petra.core.errors import ArtifactError
from petra.core.measurement import Measurement
from petra.core.trial import StageTrace
from petra.execute.prospects import Hopeless

REFERENCE = "reference.npz"
MODULES, UNMERGED = "modules", "unmerged"
"""Directories beside a candidate's files: the modules that were inserted, in files of their own,
and while it is judged its files with modules that are not folded into its layers.
"""


@dataclass(frozen=True)
class BuiltFile:
    """A file by its name in the directory in which it was made, wherever that is now."""

    name: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> BuiltFile:
        return cls(path.name, path.stat().st_size, sha256(path))

    def check(self, directory: Path) -> Path:
        """Where it lies in `directory`. Raises ArtifactError unless it is there as it was made."""
        path = directory / self.name
        if not path.is_file() or sha256(path) != self.sha256:
            raise ArtifactError(
                f"{path}: this is not the file that was built", hint="was it changed since?"
            )
        return path


@dataclass(frozen=True)
class Built:
    """A candidate's files (the main one first, then others that ship), the PyTorch model's own
    predictions to hold them against, structure and traces; no tensors.

    `stored_bytes` are what it adds to the untouched model's: its modules, or all its weights where
    others were trained.
    `unmerged` are its files with modules apart, in the directory `UNMERGED`: none where they would
    be the same, None where nobody asked for them.
    """

    files: tuple[BuiltFile, ...]
    reference: BuiltFile
    params: int
    macs: int
    quantized: bool
    trace: tuple[StageTrace, ...]
    build_s: float
    train_s: float
    counted: Mapping[str, Measurement] = field(default_factory=dict)  # by metrics of plugins
    stored_bytes: int = 0
    unmerged: tuple[BuiltFile, ...] | None = None
    hopeless: Hopeless | None = None  # for what its quality would have been left, but for an audit

    def shipping(self, files: Sequence[Path], counted: Mapping[str, Measurement]) -> Built:
        """The same candidate as these files."""
        return replace(self, files=tuple(map(BuiltFile.of, files)), counted=counted)

    @property
    def size_bytes(self) -> int:
        """Bytes of all that ships."""
        return sum(file.size_bytes for file in self.files)
