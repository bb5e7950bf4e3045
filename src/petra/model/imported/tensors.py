"""The tensors of an ONNX file, and of files beside it: read to the byte, or refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from petra.core.errors import DataError
from petra.core.text import printable

if TYPE_CHECKING:
    import onnx

FREE = ("float32", "int64", "int32", "bool", "uint8", "int8")
"""Types that inputs may have: the rest is refused with what to do."""


class OnnxRefused(DataError):
    """An ONNX file that cannot be the model of a study, and why."""


def type_name(element: int) -> str:
    """NumPy's name of a type of ONNX's, or ONNX's own."""
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(element))
    except (KeyError, ValueError, TypeError):
        return f"type {element}"


def data_files(path: Path, graph: onnx.GraphProto) -> Iterator[Path]:
    for tensor in graph.initializer:
        if tensor.data_location == tensor.EXTERNAL:
            yield _beside(path, tensor)


def _beside(path: Path, tensor: onnx.TensorProto) -> Path:
    """The file of a tensor that lies outside of the model. Raises OnnxRefused for one that is not
    in the model's directory.
    """
    where = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
    home = path.resolve().parent
    found = (home / where).resolve() if "\0" not in where else home
    if not where or Path(where).is_absolute() or home not in found.parents:
        raise OnnxRefused(
            f"{path}: the data of {printable(tensor.name)[:80]!r} are said to be in"
            f" {printable(where)[:80]!r}, outside of its directory",
            hint="weights must lie beside the model that names them",
        )
    if not found.is_file():
        raise OnnxRefused(f"{found}: no such file, which {path.name} names", hint="copy it there")
    return found


def read_tensor(path: Path, tensor: onnx.TensorProto) -> np.ndarray:
    """The values of a tensor of the file, as many as its shape says."""
    import onnx

    what = f"{path}: tensor {printable(tensor.name)[:80]!r}"
    dims = tuple(tensor.dims)
    dtype = type_name(tensor.data_type)
    if dtype not in _READ:
        raise OnnxRefused(
            f"{what} is {dtype}",
            hint="petra reads float32 models: export it in float32, without quantization",
        )
    if any(size < 0 for size in dims):
        raise OnnxRefused(f"{what} has the shape {dims}", hint="the file is damaged")
    if tensor.data_location == tensor.EXTERNAL:
        return _outside(path, tensor, np.dtype(dtype), what)
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise OnnxRefused(
            f"{what} of shape {dims} does not hold its values: {error}",
            hint="the file is damaged: export it again",
        ) from error
    return np.array(array)  # one of its own, which may be written to


_READ = (*FREE, "float64", "uint64", "uint32", "int16", "uint16")


def _outside(path: Path, tensor: onnx.TensorProto, dtype: np.dtype, what: str) -> np.ndarray:
    said = {entry.key: entry.value for entry in tensor.external_data}
    file, count = _beside(path, tensor), math.prod(tensor.dims)
    wanted, size = count * dtype.itemsize, file.stat().st_size
    try:
        start, length = int(said.get("offset") or 0), int(said.get("length") or wanted)
    except ValueError:
        start, length = -1, 0
    if start < 0 or length != wanted or start + length > size:
        raise OnnxRefused(
            f"{what} is not in {file.name}: {wanted} bytes from {start} of {size}",
            hint="the files do not belong together: export the model again",
        )
    with file.open("rb") as stream:
        stream.seek(start)
        return np.frombuffer(bytearray(stream.read(length)), dtype).reshape(tuple(tensor.dims))
