"""Where the time of a call goes, as a runtime's own profiler says, and what a file asks for.

Records only: they are made in the measuring process, and kept with a study as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass

from petra.core.errors import PetraError

INT8, DYNAMIC, CODES, FLOAT = "int8", "dynamic int8", "codes", "float32"
"""What a layer computes in. `DYNAMIC`: with activations that are quantized on the spot; `CODES`: in
float, with weights that are stored as codes and decoded. Other precisions have their own names.
"""

INPUT, OUTPUT, WEIGHTS, INSIDE = "input", "output", "weights", "inside"
"""Where a border between floats and codes lies: at an input or output of the model, between weights
and their layer, or between layers.
"""


class NotProfiled(PetraError):
    """A runtime has no operator profiler that petra can read, or not on this device."""


@dataclass(frozen=True)
class FileLayer:
    """A layer of a model file, in the order of its graph: something that multiplies.

    `node` is its number among the file's nodes, `name` what the file calls it ('' where it has no
    name). `weights` are the sizes of its weights, () for a product of two activations. `precision`
    is what the file asks for; `closed` says whether its result is quantized too.
    """

    node: int
    kind: str
    name: str = ""
    weights: tuple[int, ...] = ()
    precision: str = FLOAT
    closed: bool = False
    depthwise: bool = False
    bytes: int = 0


@dataclass(frozen=True)
class Border:
    """A quantize or dequantize operator of a file: its number among the nodes, where it lies, and
    the place of the layer that it serves (None where that is none).
    """

    node: int
    kind: str
    where: str = INSIDE
    layer: int | None = None


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its sizes, its type, its bytes, the place of the layer that reads it
    first (None: no layer does), and the operator that does.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    layer: int | None = None
    reader: str = ""


@dataclass(frozen=True)
class FileContents:
    """What a model file asks for. `tensors` are the largest, `bytes` are those of all."""

    layers: tuple[FileLayer, ...] = ()
    borders: tuple[Border, ...] = ()
    tensors: tuple[Stored, ...] = ()
    nodes: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Ran:
    """An operator as it ran, in the order of running: what the runtime calls it, milliseconds of
    one call, the precision that it computed in ('' where the runtime does not say), the number of
    the file's node that it stands for and the place of the file's layer that it computes (None:
    none, or not known).
    """

    kind: str
    ms: float
    precision: str = ""
    node: int | None = None
    layer: int | None = None
    implementation: str = ""


@dataclass(frozen=True)
class Profile:
    """The operators of a file as they ran in `calls` calls, the first ones left out.

    `statistic` says what of the calls a time is, `resolution_us` the steps in which the runtime
    counts. `traced_ms` is a whole call while it was recorded.
    """

    operators: tuple[Ran, ...]
    file: FileContents
    calls: int
    statistic: str
    resolution_us: float
    traced_ms: float

    @property
    def total_ms(self) -> float:
        """All operators together."""
        return sum(one.ms for one in self.operators)


@dataclass(frozen=True)
class Profiled:
    """A file and the untouched model's, profiled in one process, and timed in turns untraced.

    `base` and `base_ms` are None where there was nothing to compare with; `mine` is None where the
    runtime has no profile, which `refused` explains. `instruction_sets` are those of the CPU that
    decide about integers; digests are those of the two files.
    """

    runtime: str
    version: str
    host: str
    instruction_sets: tuple[str, ...]
    threads: int
    batch: int
    mine: Profile | None
    base: Profile | None
    mine_ms: float
    base_ms: float | None = None
    ratio: float | None = None
    refused: str = ""
    digest: str = ""
    base_digest: str = ""
