"""Text tables: fields as they are written, columns as they are used, and the place of errors."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from petra import data
from petra.core.errors import ConfigError, DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_fields_stay_as_they_are_written(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 'id, name ,x\n007, "a, ""b""",NA\n\n8,"two\nlines",1e3\n')
    frame = data.read_csv(file)
    assert list(frame.columns) == ["id", "name", "x"]
    assert frame["id"].tolist() == ["007", "8"]
    assert frame["name"].tolist() == ['a, "b"', "two\nlines"]
    assert frame.index.tolist() == [2, 5]
    assert frame.index.name == "line"
    np.testing.assert_array_equal(data.numbers(frame, "x"), [np.nan, 1000])
    assert data.labels(frame, "id").tolist() == ["007", "8"]


def test_other_separators_quotes_encodings_and_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress("straße;1\n".encode("cp1252")))
    frame = data.read_csv(
        tmp_path / "a.csv.gz", separator=";", encoding="cp1252", names=["way", "n"]
    )
    assert frame["way"].tolist() == ["straße"]
    glue = write(tmp_path / "g.tsv", 'sentence\tlabel\nhe said "so\t1\n"\t0\n')
    assert data.read_csv(glue, separator="\t", quote=None)["sentence"].tolist() == [
        'he said "so',
        '"',
    ]
    nameless = write(tmp_path / "p.csv", ",x\n0,5\n1,6\n")
    assert list(data.read_csv(nameless).columns) == ["column_1", "x"]


def test_spaces_are_kept_where_no_quotation_marks_follow_them(tmp_path: Path) -> None:
    file = write(tmp_path / "g.tsv", "a\tb\n one \t two\n")
    frame = data.read_csv(file, separator="\t", quote=None)
    assert frame.iloc[0].tolist() == [" one ", " two"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding in ("utf-8-sig", "utf-16") else "\ufeff"  # those write their own
    (tmp_path / "a.csv").write_bytes(f"{mark}way,n\r\nstraße,1\r\n".encode(encoding))
    frame = data.read_csv(tmp_path / "a.csv", encoding=encoding)
    assert list(frame.columns) == ["way", "n"]
    assert frame["way"].tolist() == ["straße"]


def test_row_numbers_without_a_name_are_no_step_of_a_series(tmp_path: Path) -> None:
    frame = pd.DataFrame({"t0": [0.5, 1.5], "t1": [1.0, 2.0], "y": ["a", "b"]})
    frame.to_csv(tmp_path / "a.csv")
    read = data.read_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv: line 2, column 'column_1': it has no name"):
        data.wide_series(read, label="y")
    wanted = [[[0.5, 1.0]], [[1.5, 2.0]]]
    for x, _ in (
        data.wide_series(read.drop(columns="column_1"), label="y"),
        data.wide_series(read, label="y", steps=["t0", "t1"]),
    ):
        assert np.asarray(x).tolist() == wanted
    named = write(tmp_path / "b.csv", "column_1,column_2,y\n1,2,a\n")
    assert np.asarray(data.wide_series(data.read_csv(named), label="y")[0]).shape == (1, 1, 2)


def test_a_packed_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petra.data.fields._NO_BOMB", 1000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"0,0\n" * 200_000))
    with pytest.raises(DataError, match=r"a\.csv\.gz unpacks to more than 200 times") as caught:
        data.read_csv(tmp_path / "a.csv.gz")
    assert "unpack it" in caught.value.hint
    random = np.random.default_rng(0).integers(0, 9, (400, 2))
    rows = "\n".join(f"{a},{b}" for a, b in random)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(f"a,b\n{rows}".encode()))
    assert len(data.read_csv(tmp_path / "b.csv.gz")) == 400


BROKEN = {
    "a,b\n1,2\n3\n": "line 3 has 1 fields, there are 2 columns",
    "a,b\n1,2,3\n": "line 2 has 3 fields, there are 2 columns",
    "a,a\n1,2\n": "line 1: two columns 'a'",
    "a;b\n1;2\n": "line 1: a single column 'a;b'",
    "a,b\n": "has no rows",
    "": "is empty",
    'a,b\n1,"2\n3,4\n': "line 3: unexpected end of data",
    'a,b\n1,"2" 3\n': "line 2: ',' expected after '\"'",
    "a,b\n1,2\0\n": "line 2: a zero byte",
    f'a,b\n1,"{"x" * 200_000}"\n': "field larger than field limit",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "a.csv", text)
    with pytest.raises(DataError) as caught:
        data.read_csv(file)
    assert str(file) in caught.value.message
    assert BROKEN[text] in caught.value.message
    assert caught.value.hint


def test_wrong_options(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "a,b\n1,2\n")
    for options in ({"separator": ""}, {"quote": "''"}, {"encoding": "none"}):
        with pytest.raises(ConfigError):
            data.read_csv(file, **options)  # type: ignore[arg-type]
    (tmp_path / "b.csv").write_bytes(b"a,b\n1,stra\xdfe\n")
    with pytest.raises(DataError, match="line 2: byte 0xdf is no utf-8") as caught:
        data.read_csv(tmp_path / "b.csv")
    assert "cp1252" in caught.value.hint


def test_columns_as_numbers_name_line_and_column(tmp_path: Path) -> None:
    frame = data.read_csv(write(tmp_path / "a.csv", "a,b\n1,?\nnull,2\n x ,1e39\n3,1_0\n"))
    np.testing.assert_array_equal(data.numbers(frame[:2], ["a", "b"]), [[1, np.nan], [np.nan, 2]])
    where = str(tmp_path / "a.csv")
    for rows, column, said in (
        (slice(0, 3), "a", f"{where}: line 4, column 'a': 'x ' is no number"),
        (slice(0, 3), "b", f"{where}: line 4, column 'b': 1e+39 is beyond"),
        (slice(3, 4), "b", f"{where}: line 5, column 'b': '1_0' is no number"),
    ):
        with pytest.raises(DataError) as caught:
            data.numbers(frame[rows], column)
        assert said in caught.value.message
    with pytest.raises(DataError, match="no column 'c'"):
        data.numbers(frame, "c")
    with pytest.raises(ConfigError, match="no columns"):
        data.numbers(frame, [])


def test_numbers_of_any_frame() -> None:
    frame = pd.DataFrame(
        {
            "int": [1, 2],
            "bool": [True, False],
            "null": pd.array([1, None], dtype="Int64"),
            "mixed": [None, "2.5"],
            "kind": pd.Categorical(["1", "2"]),
            "huge": [1.0, 1e200],
        }
    )
    got = data.numbers(frame, ["int", "bool", "null", "mixed", "kind"])
    np.testing.assert_array_equal(got, [[1, 1, 1, np.nan, 1], [2, 0, np.nan, 2.5, 2]])
    with pytest.raises(DataError, match=r"^row 1, column 'huge': 1e\+200 is beyond"):
        data.numbers(frame, "huge")
    with pytest.raises(DataError, match="two columns are named 'a'"):
        data.numbers(pd.DataFrame([[1, 2]], columns=["a", "a"]), "a")


def test_labels_and_classes() -> None:
    frame = pd.DataFrame({"y": [1.0, 10.0, 2.0], "z": ["b", "", "a"], "w": [1, None, 2]})
    assert data.labels(frame, "y").tolist() == ["1", "10", "2"]
    assert data.classes(data.labels(frame, "y")) == ("1", "2", "10")
    assert data.classes(np.array(["b", "a", "b"])) == ("a", "b")
    assert data.classes(np.array(["10", "nan", "9"])) == ("10", "9", "nan"), "no number is an order"
    for column in ("z", "w"):
        with pytest.raises(DataError, match=f"row 1, column '{column}': no label"):
            data.labels(frame, column)
    with pytest.raises(DataError, match="targets are int64"):
        data.classes(np.array([1, 2]))


def test_columns_of_lists() -> None:
    frame = pd.DataFrame(
        {
            "same": [[1, 2], (3, None)],
            "other": [[1.0], np.array([1, 2])],
            "deep": [[[1, 2]], np.array([np.array([3.0, 4.0])], dtype=object)],
            "text": ["12", [1]],
            "empty": [[1], []],
        }
    )
    np.testing.assert_array_equal(data.arrays(frame, "same"), [[1, 2], [3, np.nan]])
    assert [item.tolist() for item in data.arrays(frame, "other")] == [[1], [1, 2]]
    assert np.asarray(data.arrays(frame, "deep")).shape == (2, 1, 2)
    for column, said in (("text", "row 0, column 'text': '12' is no"), ("empty", "row 1")):
        with pytest.raises(DataError, match=said):
            data.arrays(frame, column)
    assert math.isnan(np.asarray(data.arrays(frame, "same"))[1, 1])
