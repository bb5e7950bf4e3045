"""UCR files: the archive's numbers, and the line and field of what is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from petra import data
from petra.core.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_labels_and_values(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "1\t0.5\t-2e3\n-1\tNaN\t4\r\n\n2.0000000e+00\t1\t\n")
    x, y = data.read_ucr(file)
    assert isinstance(x, np.ndarray)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[:, 0], [[0.5, -2000], [np.nan, 4], [1, np.nan]])
    assert y.tolist() == ["1", "-1", "2"]


def test_labels_that_are_no_whole_numbers_stay_as_they_are(tmp_path: Path) -> None:
    words = ["1_0", "10", "a b", "inf", "-0.5", "1e3"]
    file = write(tmp_path / "a.tsv", "".join(f"{word}\t1\n" for word in words))
    assert data.read_ucr(file)[1].tolist() == ["1_0", "10", "a b", "inf", "-0.5", "1000"]


def test_unequal_series_are_cut_at_their_padding(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "a\t1\tNaN\t3\tNaN\nb\t1\t2\t3\t4\n")
    x, _ = data.read_ucr(file, unequal=True)
    assert isinstance(x, list)
    assert [item.shape for item in x] == [(1, 3), (1, 4)]
    np.testing.assert_array_equal(x[0], [[1, np.nan, 3]])
    padded, _ = data.read_ucr(file)
    assert isinstance(padded, np.ndarray)
    assert np.isnan(padded[0, 0, 3])


def test_gzipped_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf1\t2\n"))
    x, y = data.read_ucr(tmp_path / "a.tsv.gz")
    assert float(np.asarray(x).squeeze()) == 2
    assert y.tolist() == ["1"]


BROKEN = {
    "": "is empty",
    " \n \n": "is empty",
    "1\t2\t3\n1\t2\n": "line 2 has 1 values, line 1 has 2",
    "1,2,3\n": "line 1 has one field",
    "1\t2\tx\n": "line 1, field 3: 'x' is no number",
    "1\t2\t1e39\n": "line 1, field 3: 1e+39 is beyond what float32 holds",
    "1\t2\n1\t-inf\n": "line 2, field 2: -inf is beyond",
    f"1\t{'9' * 500}\n": "line 1, field 2: inf is beyond",
    "1\t1_000\n": "line 1, field 2: '1_000' is no number",
    "\t2\n": "line 1, field 1: the label is missing",
    "1\t2\n\t\n": "line 2, field 1: the label is missing",
    "1\t2\0\n": "line 1: a zero byte",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "a.tsv", text)
    with pytest.raises(DataError) as caught:
        data.read_ucr(file)
    assert str(file) in caught.value.message
    assert BROKEN[text] in caught.value.message
    assert caught.value.hint


def test_no_series_is_missing_throughout(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "1\t2\t3\n1\tNaN\t\n")
    with pytest.raises(DataError, match="line 2: all values are missing"):
        data.read_ucr(file, unequal=True)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        data.read_ucr(tmp_path / "none.tsv")
    with pytest.raises(DataError, match="is a folder"):
        data.read_ucr(tmp_path)
    (tmp_path / "a.tsv").write_bytes(b"1\t2\n1\t\xff\xfe\n")
    with pytest.raises(DataError, match="line 2: byte 0xff is no utf-8"):
        data.read_ucr(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").write_bytes("1\t2\n".encode("utf-16"))
    with pytest.raises(DataError, match="no utf-8") as caught:
        data.read_ucr(tmp_path / "b.tsv")
    assert "utf-16" in caught.value.hint
    (tmp_path / "c.tsv.gz").write_bytes(gzip.compress(b"1\t2\n" * 100)[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        data.read_ucr(tmp_path / "c.tsv.gz")
