"""A safetensors file from anywhere: its header is held to what is expected before any of its
tensors is read, so that no more memory is taken than what is expected has.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from petra.core.errors import ArtifactError
from petra.core.text import printable, shown
from petra.methods.adapt.files.record import DAMAGED
from petra.store.checked import from_json, mapping, sequence, text, whole

MAX_HEADER = 1 << 23  # bytes: some fifty thousand tensors
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorFacts:
    """What a tensor is without its numbers. As what is expected, a `dtype` of None is any of real
    numbers.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None

    @classmethod
    def of(cls, tensor: Tensor) -> TensorFacts:
        return cls(tuple(tensor.shape), tensor.dtype)

    @property
    def most_bytes(self) -> int:
        return math.prod(self.shape) * (self.dtype or torch.float64).itemsize

    def allows(self, found: TensorFacts) -> bool:
        """Whether this is what was expected of `found`."""
        if self.dtype is None:
            fits = found.dtype is not None and found.dtype.is_floating_point
        else:
            fits = found.dtype == self.dtype
        return fits and found.shape == self.shape

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.") if self.dtype else "real"
        return f"{kind} {self.shape}"


def written(tensors: Mapping[str, Tensor]) -> bytes:
    """The file of these tensors, the same bytes for the same tensors."""
    return save({k: tensors[k].detach().cpu().contiguous().clone() for k in sorted(tensors)})


def plain_file(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes: no link is followed, no pipe waited on.

    Raises ArtifactError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ArtifactError(f"{path}: this is no file", hint=DAMAGED)
            if found.st_size > limit:
                said = f"it has {found.st_size} bytes, and at most {limit} are expected"
                raise ArtifactError(f"{path}: {said}", hint=DAMAGED)
            with os.fdopen(descriptor, "rb", closefd=False) as opened:
                return opened.read(limit)
        finally:
            os.close(descriptor)
    except OSError as error:
        said = error.strerror or str(error)
        raise ArtifactError(
            f"{path}: cannot be read: {said}", hint="give the directory that save_modules wrote"
        ) from None


def read_expected(
    path: Path, content: bytes, expected: Mapping[str, TensorFacts]
) -> dict[str, Tensor]:
    """The tensors in the `content` of the file at `path`: exactly those expected, each of its shape
    and type, without NaN and infinities. Raises ArtifactError, naming the tensor.
    """
    check_header(path, content, expected)
    try:
        found: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, RuntimeError, TypeError) as error:
        raise ArtifactError(f"{path}: {printable(str(error))[:200]}", hint=DAMAGED) from None
    for name, tensor in found.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ArtifactError(f"{path}: {shown(name)} holds NaN or infinities", hint=DAMAGED)
    return found


def check_header(path: Path, content: bytes, expected: Mapping[str, TensorFacts]) -> None:
    """Raise ArtifactError unless the header of a safetensors file says what is expected."""
    found = _header(path, content)
    if lacking := sorted(expected.keys() - found.keys()):
        raise ArtifactError(
            f"{path}: {len(lacking)} tensors are missing, such as {shown(lacking[0])}",
            hint=DAMAGED,
        )
    if extra := sorted(found.keys() - expected.keys()):
        raise ArtifactError(
            f"{path}: {len(extra)} tensors belong to no module, such as {shown(extra[0])}",
            hint=DAMAGED,
        )
    for name, facts in found.items():
        if not expected[name].allows(facts):
            raise ArtifactError(
                f"{path}: {shown(name)} is {facts}, where {expected[name]} is expected",
                hint="was it made for another model? " + DAMAGED,
            )


def _header(path: Path, content: bytes) -> dict[str, TensorFacts]:
    """What a file says of its tensors, which lie in it one behind the other without gaps."""
    try:
        size = int.from_bytes(content[:8], "little")
        if len(content) < 8 or size > min(MAX_HEADER, len(content) - 8):
            raise ValueError(f"its header is said to have {size} bytes")
        data = mapping(from_json(content[8 : 8 + size].decode("utf-8"), "its header"), "its header")
        data.pop("__metadata__", None)
        spans, found = [], {}
        for name, entry in data.items():
            found[name], span = _entry(name, entry)
            spans.append(span)
        at = 0
        for begin, end in sorted(spans):
            if begin != at:
                raise ValueError("its tensors overlap, or leave gaps")
            at = end
        if at != len(content) - 8 - size:
            raise ValueError(f"it has {len(content) - 8 - size} bytes of tensors, and says {at}")
    except ValueError as error:
        said = printable(str(error))[:200]
        raise ArtifactError(f"{path}: not a file of tensors: {said}", hint=DAMAGED) from None
    return found


def _entry(name: str, entry: object) -> tuple[TensorFacts, tuple[int, int]]:
    what = shown(name)
    fields = mapping(entry, what)
    if fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{what} has the fields {shown(sorted(fields))}")
    kind = text(fields["dtype"], what)
    if kind not in DTYPES:
        raise ValueError(f"{what} has the type {shown(kind)}")
    shape = tuple(whole(n, f"a size of {what}") for n in sequence(fields["shape"], what))
    begin, end = (whole(n, f"a place of {what}") for n in sequence(fields["data_offsets"], what))
    facts = TensorFacts(shape, DTYPES[kind])
    if len(shape) > 8 or end - begin != facts.most_bytes:
        raise ValueError(f"{what} is {facts}, in {end - begin} bytes")
    return facts, (begin, end)
