"""What a bundle tells of a file besides its figures: what its inputs and outputs look like on real
items, a few of these with what it returns for them, and digests of the data. And replaying that.

Runs in the measuring process: no torch, unless the runtime is torch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petra.core.digest import sha256
from petra.core.errors import ArtifactError, ParityError
from petra.core.target import Target
from petra.measure.given_inputs import given_inputs
from petra.measure.interface import interface_of
from petra.measure.npz import read_bounded
from petra.measure.stored import PADDING, Dense, Stored, load_split, save_arrays
from petra.runtimes.base import Arrays, InputSpec, LoadedModel, numpy_type
from petra.runtimes.table import runtime_for
from petra.runtimes.verify import distance
from petra.store.layout import own_file

SAMPLE_BYTES = 1 << 20  # of the inputs that ship; one item ships however large it is
LOOKED_AT = 64  # items that the file is run on, to see what it returns
_CHUNK = 1 << 22  # numbers held in float64 at a time


@dataclass(frozen=True)
class Looked:
    """What to look at: an artifact, the study's `data` ("" where there is none), and the two files
    to write with a sample of at most `items` items and what comes of them ("" for none).
    """

    target: Target
    artifact: str
    data: str = ""
    items: int = 0
    inputs: str = ""
    outputs: str = ""


@dataclass(frozen=True)
class Replay:
    """An artifact, and the two files of a sample. `deviations`: standard deviations of outputs on
    more items, by name.
    """

    target: Target
    artifact: str
    inputs: str
    outputs: str
    deviations: Mapping[str, float]


def look_at(request: Looked) -> dict[str, Any]:
    """What the file declares; with data, what real inputs and outputs look like, digests of the
    splits, and the sample that was written.

    Raises ArtifactError for a file that does not load or run, DataError for data that petra did not
    write.
    """
    runtime, artifact = runtime_for(request.target), Path(request.artifact)
    session = runtime.load(artifact)
    found: dict[str, Any] = {
        "inputs": [asdict(spec) for spec in session.inputs],
        "outputs": [asdict(spec) for spec in session.outputs],
    }
    if not request.data:
        return found
    data = Path(request.data)
    split = load_split(own_split(data, "val"))
    _, some = next(split.items.in_batches(LOOKED_AT))
    outputs = session.run(some)
    found["observed"] = {
        "inputs": {name: observed(array) for name, array in _columns(split).items()},
        "outputs": {name: observed(array) for name, array in outputs.items()},
        "output_items": len(next(iter(some.values()))),
        "probabilities": [name for name, array in outputs.items() if _are_shares(array)],
    }
    found["data"] = {
        name: digest for name in ("val", "test") if (digest := split_digest(data, name))
    }
    if request.items:
        interface = interface_of(*runtime.declared(artifact, session))
        fixed = None if interface.free_batch else interface.fixed_batch or 1
        found["sample"] = _write_sample(session, split, request, fixed)
    return found


def own_split(data: Path, name: str) -> Path:
    """The directory of a split, in which nothing is a link. Raises ArtifactError."""
    directory = data / name
    for file in directory.rglob("*"):
        if not file.is_dir() or file.is_symlink():
            own_file(data, str(file.relative_to(data)))
    return directory


def _columns(split: Stored) -> dict[str, np.ndarray]:
    """What a model is given that differs from item to item: padding and masks are not."""
    if isinstance(split.items, Dense):
        return dict(split.items.columns)
    return {**split.items.values, **split.items.items}


def observed(array: np.ndarray) -> dict[str, float]:
    """Least, greatest, mean and standard deviation of the numbers that are finite, and the share
    that is not; {} of text, of nothing, and of numbers too large for their squares. One pass, a
    chunk of items at a time.
    """
    if array.dtype.kind not in "biuf" or not array.size:
        return {}
    least, most, count, total, squares = np.inf, -np.inf, 0, 0.0, 0.0
    step = max(1, _CHUNK // max(1, array[:1].size)) if array.ndim else 1
    pivot = None
    for start in range(0, len(array) if array.ndim else 1, step):
        part = np.asarray(array[start : start + step] if array.ndim else array, np.float64)
        part = part[np.isfinite(part)]
        if not part.size:
            continue
        pivot = float(part.mean()) if pivot is None else pivot
        least, most = min(least, float(part.min())), max(most, float(part.max()))
        count, total = count + part.size, total + float((part - pivot).sum())
        with np.errstate(over="ignore"):
            squares += float(((part - pivot) ** 2).sum())
    if pivot is None:
        return {"missing": 1.0}
    variance = max(0.0, squares / count - (total / count) ** 2)
    if not math.isfinite(squares):
        return {}
    return {
        "least": least,
        "most": most,
        "mean": pivot + total / count,
        "deviation": variance**0.5,
        "missing": 1 - count / array.size,
    }


def _are_shares(array: np.ndarray) -> bool:
    """Whether rows (n, k) are positive and sum to 1, as probabilities do."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind != "f":
        return False
    return bool((array >= 0).all() and np.allclose(array.sum(1), 1, atol=1e-2))


def split_digest(data: Path, name: str) -> dict[str, Any]:
    """Items of a written split, and one SHA-256 of all its inputs and targets: of the lines that
    ``sha256sum`` prints of these files, by name. {} where the split was not written.
    """
    directory, targets = own_split(data, name), data / f"{name}.targets.npy"
    if not directory.is_dir() or not targets.is_file():
        return {}
    own_file(data, targets.name)
    files = [*directory.rglob("*.npy"), *directory.glob(PADDING), targets]
    lines = sorted(f"{f.relative_to(data).as_posix()}\n{sha256(f)}" for f in files)
    digest = hashlib.sha256()
    for name_of, _, content in (line.partition("\n") for line in lines):
        digest.update(f"{content}  {name_of}\n".encode())
    items = len(np.load(targets, mmap_mode="r", allow_pickle=False))
    return {"items": items, "sha256": digest.hexdigest()}


def _write_sample(
    session: LoadedModel, split: Stored, request: Looked, fixed: int | None
) -> dict[str, Any]:
    """The first items, as the file declares its inputs: as many as a file with a `fixed` batch
    takes.
    """
    count = fixed or min(len(split.items), request.items)
    inputs = _batch(session, split, count)
    while not fixed and count > 1 and sum(a.nbytes for a in inputs.values()) > SAMPLE_BYTES:
        count //= 2
        inputs = _batch(session, split, count)
    save_arrays(Path(request.inputs), inputs)
    save_arrays(Path(request.outputs), session.run(inputs))
    return {"items": min(count, len(split.items))}


def _batch(session: LoadedModel, split: Stored, count: int) -> Arrays:
    found = split.items.batch(np.arange(count) % len(split.items))
    return {spec.name: found[spec.name].astype(numpy_type(spec)) for spec in session.inputs}


def replay(request: Replay) -> dict[str, Any]:
    """Run a file on a sample, and how far what it returns is from what was recorded: by output,
    largest absolute and relative difference, as `petra.runtimes.verify.distance` has them, items
    and, of scores, items for which another one is the largest.

    Raises ArtifactError for files that cannot be read, outputs that are missing or have another
    form.
    """
    runtime, artifact = runtime_for(request.target), Path(request.artifact)
    session = runtime.load(artifact)
    interface = interface_of(*runtime.declared(artifact, session))
    read_bounded(Path(request.inputs))  # what is no plain file, or too much
    inputs = given_inputs(Path(request.inputs), interface)
    wanted, got = read_bounded(Path(request.outputs)), session.run(inputs)
    if set(wanted) != set(got):
        raise ArtifactError(
            f"{artifact}: returns {sorted(got)}, recorded are {sorted(wanted)}",
            hint="the sample is of another file",
        )
    found = {}
    for name, before in wanted.items():
        try:
            spread = float(request.deviations.get(name, 0.0))
            largest, relative = distance(got[name], before, spread=spread)
        except ParityError as error:
            raise ArtifactError(f"{artifact}: output {name!r}: {error.message}") from None
        found[name] = {
            "max_abs_error": largest,
            "relative_error": relative,
            "items": len(before) if before.ndim else 1,
            "other_choice": _other_choice(got[name], before),
        }
    return {"inputs": _declared(session.inputs), "outputs": found}


def _declared(specs: tuple[InputSpec, ...]) -> list[dict[str, Any]]:
    return [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} for s in specs]


def _other_choice(now: np.ndarray, before: np.ndarray) -> int:
    """Items whose largest score is another one; 0 of what are no scores."""
    if before.ndim != 2 or before.shape[1] < 2 or before.dtype.kind != "f":
        return 0
    return int((now.argmax(1) != before.argmax(1)).sum())
