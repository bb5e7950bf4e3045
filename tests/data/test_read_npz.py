"""NumPy's archives: by name, as long as each other, never unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from petra import data
from petra.core.errors import DataError


def test_one_input_and_several(tmp_path: Path) -> None:
    a, b, y = np.zeros((3, 2)), np.ones((3, 4)), np.array([1, 0, 1])
    np.savez(tmp_path / "a.npz", a=a, b=b, y=y)
    x, targets = data.read_npz(tmp_path / "a.npz", inputs="a", targets="y")
    np.testing.assert_array_equal(x, a)
    np.testing.assert_array_equal(targets, y)
    x, _ = data.read_npz(tmp_path / "a.npz", inputs=["a", "b"], targets="y")
    assert isinstance(x, dict)
    assert list(x) == ["a", "b"]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


def test_what_is_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, x=np.zeros((3, 2)), y=np.zeros(2), z=np.zeros(()), none=np.zeros(0))
    for names, said in (
        (("x", "y"), r"x has shape \(3, 2\), y has \(2,\)"),
        (("z", "y"), r"z has shape \(\)"),
        (("x", "w"), "has no array 'w'"),
        (("none", "none"), "none is empty"),
    ):
        with pytest.raises(DataError, match=said):
            data.read_npz(file, inputs=names[0], targets=names[1])
    np.savez(file, x=np.array([Bomb()] * 2, dtype=object), y=np.zeros(2))
    with pytest.raises(DataError, match="cannot be read: Object arrays"):
        data.read_npz(file, inputs="x", targets="y")
    assert capsys.readouterr().out == ""


def test_broken_files(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    with pytest.raises(DataError, match="no such file"):
        data.read_npz(file, inputs="x", targets="y")
    for content in (b"", b"PK\x03\x04 nothing", b"text"):
        file.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            data.read_npz(file, inputs="x", targets="y")
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(DataError, match="a single array"):
        data.read_npz(tmp_path / "b.npy", inputs="x", targets="y")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", b"no array")
        archive.writestr("y", b"neither")
    with pytest.raises(DataError, match="x is no array"):
        data.read_npz(file, inputs="x", targets="y")
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("x.npy", "y.npy"):
            archive.writestr(name, (header % 2**50).ljust(127) + b"\n")
    with pytest.raises(DataError, match="cannot be read"):
        data.read_npz(file, inputs="x", targets="y")


HEADERS = [
    "(",
    "'" * 3,
    "[" * 60,
    "{[]: 1}",
    "{'descr': (), 'fortran_order': False, 'shape': (1,), }",
    "{'descr': 7, 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,), }",
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("version", [1, 2, 3, 9])
def test_headers_that_lie(tmp_path: Path, header: str, version: int) -> None:
    file = tmp_path / "a.npz"
    line = header.encode().ljust(117) + b"\n"
    size = len(line).to_bytes(2 if version == 1 else 4, "little")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY" + bytes([version, 0]) + size + line + bytes(8))
    with pytest.raises(DataError, match=r"a\.npz: it cannot be read"):
        data.read_npz(file, inputs="x", targets="x")
