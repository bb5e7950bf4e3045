"""A stranger's ``.pt2`` archive, read by petra and written anew for PyTorch, which sees no other.

`torch.export.load` alone is not safe on such a file. It unpickles odd tensors, constants and sample
inputs, loads libraries, evaluates expressions, imports modules, turns names into Python source, and
picks archive members without regard to case, the first of two with one name, in several layouts. So
no archive is searched for what is bad: `rebuilt` takes from it what
`petra.runtimes.torch_program.export_program` writes (these members, JSON of this schema, raw bytes
of tensors), refuses it when there is anything else, and writes from what it read one of its own.
"""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from petra.core.errors import ArtifactError
from petra.runtimes.torch_records import Record, read
from petra.runtimes.torch_schema import PayloadConfig, Program
from petra.runtimes.torch_text import shown
from petra.runtimes.torch_values import TensorMeta

_PROGRAM = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_TABLES = {_WEIGHTS: ("data/weights/", "weight_"), _CONSTANTS: ("data/constants/", "tensor_")}
_JSON: Mapping[str, type[Record]] = {
    _PROGRAM: Program,
    _WEIGHTS: PayloadConfig,
    _CONSTANTS: PayloadConfig,
}
# Bytes of what PyTorch writes to say which format it is.
_MARKS = {
    "archive_format": re.compile(rb"pt2"),
    "archive_version": re.compile(rb"0"),
    "byteorder": re.compile(rb"little"),
    ".data/version": re.compile(rb"\d{1,4}\n?"),
    ".data/serialization_id": re.compile(rb"\d{0,64}"),
}
_FIXED = frozenset({*_JSON, *_MARKS, _SAMPLES})
_OPTIONAL = frozenset({".data/serialization_id"})
_PAYLOAD = re.compile(r"data/weights/weight_\d{1,9}|data/constants/tensor_\d{1,9}")

MAX_JSON = 32 * 2**20
"""Bytes of one JSON member, which take up to fifty times as many in memory.

That is room for some ten thousand operators.
"""
MAX_DIRECTORY = 16 * 2**20
"""Bytes of the archive's own table of its members, which takes ten times as many in memory."""
_ENCRYPTED = 0x1
_EXPORT_AGAIN = "only archives that petra exported are opened; export the model again"
_UNREADABLE = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
    OverflowError,
    struct.error,
)


@contextmanager
def rebuilt(path: Path) -> Iterator[IO[bytes]]:
    """An archive of petra's own with the content of `path`, in a file without a name.

    Raises ArtifactError when `path` is no archive or has what petra does not export. Cost: reads
    and writes the file once, and checks its JSON, about a second for 10 MB of it; tensors pass
    through in pieces.
    """
    with tempfile.TemporaryFile(prefix="petra-") as clean:
        try:
            with path.open("rb") as stream:
                _check_directory(stream)
                with zipfile.ZipFile(stream) as source, zipfile.ZipFile(clean, "w") as target:
                    _rebuild(source, target)
        except _Refused as refused:
            raise ArtifactError(f"{path}: {refused}", hint=_EXPORT_AGAIN) from None
        except _UNREADABLE as error:
            message = f"{path}: not a .pt2 archive ({shown(str(error))[1:-1]})"
            raise ArtifactError(message, hint="export the model again") from error
        except OSError as error:
            raise ArtifactError(
                f"{path}: cannot be read or copied: {error.strerror}",
                hint=f"PyTorch is given a checked copy in {tempfile.gettempdir()}: is there room?",
            ) from error
        clean.seek(0)
        yield clean


class _Refused(Exception):
    """What the archive has that petra's do not have; names the member."""


def _check_directory(stream: IO[bytes]) -> None:
    """The archive ends with its directory, of a size that can be read, and nothing after it."""
    stream.seek(max(0, stream.seek(0, 2) - 98))
    end = stream.read().rjust(98, b"\0")
    if end[76:80] != b"PK\5\6" or end[96:] != b"\0\0":
        raise _Refused("not a .pt2 archive: it does not end as one")
    (size,) = struct.unpack_from("<L", end, 76 + 12)
    if end[56:60] == b"PK\6\7":  # past 4 GB
        (size,) = struct.unpack_from("<Q", end, 40)
    if size > MAX_DIRECTORY:
        raise _Refused(f"has a directory of {size} bytes")


def _rebuild(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
    members = _members(source)
    records = {name: _record(source, members[name], kind) for name, kind in _JSON.items()}
    payloads: set[str] = set()
    for table, (folder, prefix) in _TABLES.items():
        config = records[table]
        assert isinstance(config, PayloadConfig)
        payloads |= _check_payloads(config, folder, prefix, members)
    if extra := {name for name in members if _PAYLOAD.fullmatch(name)} - payloads:
        raise _Refused(f"no tensor is said to be in {shown(min(extra))}")
    for name in (*_MARKS, *_JSON, _SAMPLES, *sorted(payloads)):
        if name not in members:
            continue
        with target.open(zipfile.ZipInfo(f"archive/{name}"), "w", force_zip64=True) as out:
            if name in records:
                out.write(records[name].to_json())
            else:
                _copy(source, members[name], out)


def _members(source: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by their names below the one folder; all of them known, plain bytes, once."""
    found: dict[str, zipfile.ZipInfo] = {}
    roots = set()
    for info in source.infolist():
        root, _, name = info.orig_filename.partition("/")
        roots.add(root)
        if name in found:
            raise _Refused(f"member {shown(info.orig_filename)} is there twice")
        if name not in _FIXED and not _PAYLOAD.fullmatch(name):
            what = shown(info.orig_filename)
            raise _Refused(f"contains {what}, which no exported program has{_why(name)}")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise _Refused(f"member {shown(info.orig_filename)} is compressed")
        if info.flag_bits & _ENCRYPTED:
            raise _Refused(f"member {shown(info.orig_filename)} is encrypted")
        found[name] = info
    if len(roots) != 1 or roots & {"", ".", ".."}:
        some = ", ".join(shown(root) for root in sorted(roots)[:3])
        raise _Refused(f"its members are not in one folder but in {some}")
    if missing := _FIXED - _OPTIONAL - set(found):
        raise _Refused(f"has no {min(missing)}")
    if min(info.header_offset for info in found.values()):
        raise _Refused("there is something else before the archive in the file")
    _check_sizes(source, found)
    return found


def _why(name: str) -> str:
    """What a well-known member would do."""
    lower = name.lower()
    if "aotinductor" in lower or lower.endswith((".so", ".py", ".pyc")):
        return " (compiled or Python code)"
    if lower.endswith((".pkl", ".pt", ".pth")) or "obj_" in lower:
        return " (a pickle)"
    return ""


def _check_sizes(source: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> None:
    """No member is larger than it may be, and all together no larger than the file, where each has
    its own place."""
    assert source.fp is not None
    whole = source.fp.seek(0, 2)
    if sum(info.file_size for info in members.values()) > whole:
        raise _Refused("its members overlap")
    if members[_SAMPLES].file_size:
        raise _Refused(f"member {shown(_SAMPLES)} contains sample inputs, a pickle")
    for name in (*_JSON, *_MARKS):
        if name in members and members[name].file_size > (MAX_JSON if name in _JSON else 64):
            raise _Refused(f"member {shown(name)} has {members[name].file_size} bytes")
    for name, mark in _MARKS.items():
        if name in members and not mark.fullmatch(source.read(members[name])):
            raise _Refused(f"member {shown(name)} says {shown(source.read(members[name]))}")


def _record(source: zipfile.ZipFile, info: zipfile.ZipInfo, kind: type[Record]) -> Record:
    content = source.read(info)
    try:
        return read(kind, content)
    except ValueError as error:
        raise _Refused(f"member {shown(info.orig_filename)}: {error}") from None


def _copy(source: zipfile.ZipFile, info: zipfile.ZipInfo, out: IO[bytes]) -> None:
    with source.open(info) as stream:
        shutil.copyfileobj(stream, out, 2**20)


def _check_payloads(
    config: PayloadConfig, folder: str, prefix: str, members: Mapping[str, zipfile.ZipInfo]
) -> set[str]:
    """The members that hold the tensors of a table. Every tensor lies within its member's bytes."""
    types: dict[str, int] = {}
    for path, payload in config.config.items():
        name, meta = folder + payload.path_name, payload.tensor_meta
        if not payload.path_name.startswith(prefix) or name not in members:
            raise _Refused(f"has no member {shown(name)}, in which {shown(path)} is said to be")
        if types.setdefault(name, meta.dtype) != meta.dtype:
            raise _Refused(f"member {shown(name)} has tensors of two types")
        try:
            _check_extent(meta, members[name].file_size)
        except ValueError as error:
            raise _Refused(f"member {shown(name)}: {shown(path)} {error}") from None
    return set(types)


def _check_extent(meta: TensorMeta, size: int) -> None:
    """Raise ValueError unless the elements that `meta` describes are in `size` bytes."""
    sizes, strides = [s.as_int for s in meta.sizes], [s.as_int for s in meta.strides]
    offset = meta.storage_offset.as_int
    numbers = [*sizes, *strides, offset]
    if len(sizes) != len(strides) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise ValueError("has sizes that are no numbers of elements")
    width = _element_size(meta.dtype)
    if size % width:
        raise ValueError(f"has elements of {width} bytes, and there are {size}")
    last = offset + sum((n - 1) * stride for n, stride in zip(sizes, strides, strict=True))
    if (all(sizes) and last >= size // width) or offset > size // width:
        raise ValueError(f"reaches beyond its {size} bytes")


def _element_size(scalar_type: int) -> int:
    from torch._export.serde.schema import ScalarType
    from torch._export.serde.serialize import deserialize_scalar_type

    try:
        return int(deserialize_scalar_type(ScalarType(scalar_type)).itemsize)
    except (ValueError, KeyError):
        raise ValueError(f"has elements of an unknown type {scalar_type}") from None
