"""Inputs that a person gives for a model file: an .npz file, examined before it is read."""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from petra.core.errors import ConfigError, PetraError
from petra.core.interface import Interface, TensorSpec
from petra.measure.random_inputs import LIMIT_BYTES
from petra.runtimes.base import Arrays, error_line, numpy_type

_HOW = "write it with numpy.savez(file, **{input's name: array})"
_HEADER_BYTES = 12_000  # NumPy reads headers of up to 10,000


def given_inputs(path: Path, interface: Interface) -> Arrays:
    """The arrays in `path` by input name, each of the type and shape that its input declares.

    Nothing is unpickled, and nothing read that its header, or the model, does not fit. Raises
    ConfigError that names the array and says what is wrong with it; ArtifactError for an input that
    takes no array.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file", hint=_HOW)
    wanted = {spec.name: spec for spec in interface.inputs}
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path, wanted)
            heads = {name: announced(archive, member) for name, member in members.items()}
            for name, spec in wanted.items():
                _fits(spec, *heads[name], where=f"{path}: {name!r}")
            _bounded(heads, path)
            _sizes_agree(interface, {name: shape for name, (shape, _) in heads.items()}, path)
            return {name: _read(archive, members[name], spec) for name, spec in wanted.items()}
    except PetraError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{path}: cannot be read as an .npz file: {error_line(error)}", hint=_HOW
        ) from error


def _members(
    archive: zipfile.ZipFile, path: Path, wanted: Mapping[str, TensorSpec]
) -> dict[str, zipfile.ZipInfo]:
    """The members by the input they are for."""
    found = Counter(member.filename.removesuffix(".npy") for member in archive.infolist())
    if twice := [name for name, count in found.items() if count > 1]:
        raise ConfigError(f"{path}: holds {twice[0]!r} twice", hint=_HOW)
    if set(found) != set(wanted):
        raise ConfigError(
            f"{path}: has arrays for {sorted(found)[:20]}, the model takes {sorted(wanted)}",
            hint="an array for every input, under its name",
        )
    return {member.filename.removesuffix(".npy"): member for member in archive.infolist()}


def announced(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that a member announces."""
    with archive.open(member) as file:
        start = io.BytesIO(file.read(_HEADER_BYTES))
    if np.lib.format.read_magic(start) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(start)
    if any(size < 0 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, dtype


def _bounded(heads: Mapping[str, tuple[tuple[int, ...], np.dtype]], path: Path) -> None:
    size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in heads.values())
    if size > LIMIT_BYTES:
        raise ConfigError(
            f"{path}: {size / 2**30:.3g} GB of arrays, and at most {LIMIT_BYTES / 2**30:g} GB are"
            " read",
            hint="a few items are enough",
        )


def _fits(spec: TensorSpec, shape: tuple[int, ...], dtype: np.dtype, *, where: str) -> None:
    """Refuse what the model does not take. A declared shape of () may also be an unknown one."""
    wanted = numpy_type(spec)
    if dtype.hasobject or dtype.kind not in "biufcU":
        raise ConfigError(
            f"{where} holds {'Python objects' if dtype.hasobject else dtype}, not numbers or text",
            hint="objects are never unpickled; store text as numpy.array(text, dtype=str)",
        )
    if dtype.kind != wanted.kind or (dtype.kind != "U" and dtype.newbyteorder("=") != wanted):
        raise ConfigError(
            f"{where} is {dtype}, the input is {spec.dtype}",
            hint=f"store array.astype({'str' if wanted.kind == 'U' else wanted.name!r})",
        )
    declared = spec.shape or shape
    if len(shape) != len(declared) or any(
        w not in (None, s) for w, s in zip(declared, shape, strict=True)
    ):
        raise ConfigError(
            f"{where} has shape {shape}, the input {_declared(spec)}",
            hint="the array needs the sizes that the model fixes; the others are free",
        )


def _declared(spec: TensorSpec) -> str:
    sizes = [
        str(size) if size is not None else name or "?"
        for size, name in zip(spec.shape, spec.names, strict=True)
    ]
    return f"({', '.join(sizes)})"


def _sizes_agree(interface: Interface, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuse sizes of one name that differ, batches of different lengths, and none at all."""
    seen: dict[str, tuple[str, int]] = {}
    for spec in interface.inputs:
        for axis, size in enumerate(shapes[spec.name][: len(spec.shape)]):
            name = spec.names[axis] if axis in spec.free else ""
            name = "the batch" if interface.free_batch.get(spec.name) == axis else name
            where, known = seen.setdefault(name, (spec.name, size)) if name else (spec.name, size)
            if known != size:
                raise ConfigError(
                    f"{path}: {name} is {known} in {where!r} and {size} in {spec.name!r}",
                    hint="the model declares them equal",
                )
            if name == "the batch" and not size:
                raise ConfigError(f"{path}: {spec.name!r} has no items", hint="give at least one")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, spec: TensorSpec) -> np.ndarray:
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    return array.astype(array.dtype if array.dtype.kind == "U" else numpy_type(spec), order="C")
