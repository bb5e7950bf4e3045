"""Parquet and saved data sets: what was written comes back, and nothing else is opened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from petra import data
from petra.core.errors import DataError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from saved import CLASS_LABEL, save_to_disk  # noqa: E402


def test_parquet_comes_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "n": [1, 2, 3],
            "x": [0.5, None, 2.5],
            "kind": ["a", None, "c"],
            "when": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"]),
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    got = data.read_parquet(tmp_path / "a.parquet")
    assert got.index.name == "row"
    assert list(got.columns) == list(frame.columns)
    np.testing.assert_array_equal(data.numbers(got, ["n", "x"])[:, 1], [0.5, np.nan, 2.5])
    assert data.vocabulary(got, ["kind"]) == {"kind": ("a", "c")}
    with pytest.raises(DataError, match=r"a\.parquet: row 1, column 'kind': no label"):
        data.labels(got, "kind")
    frame.set_index("when").to_parquet(tmp_path / "b.parquet")
    assert "when" in data.read_parquet(tmp_path / "b.parquet").columns


def test_long_identifiers_beside_gaps_keep_their_digits(tmp_path: Path) -> None:
    first = 2**60 + 1
    table = pa.table({"shop": pa.array([first, first + 1, None]), "n": pa.array([1, None, 3])})
    parquet.write_table(table, tmp_path / "a.parquet")
    frame = data.read_parquet(tmp_path / "a.parquet")
    assert data.vocabulary(frame, ["shop"]) == {"shop": (str(first), str(first + 1))}
    np.testing.assert_array_equal(data.numbers(frame, "n"), [1, np.nan, 3])
    with pytest.raises(DataError, match="row 2, column 'shop': no label"):
        data.labels(frame, "shop")


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    for i in range(3):
        pd.DataFrame({"x": [i]}).to_parquet(tmp_path / f"{2 - i}.parquet")
    assert data.read_parquet(tmp_path)["x"].tolist() == [2, 1, 0]
    pd.DataFrame({"y": [1]}).to_parquet(tmp_path / "3.parquet")
    with pytest.raises(DataError, match=r"3\.parquet: its columns are \['y'\]"):
        data.read_parquet(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"holds no \.parquet file"):
        data.read_parquet(tmp_path / "none")


def test_broken_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    with pytest.raises(DataError, match="no such file"):
        data.read_parquet(file)
    pd.DataFrame({"x": np.arange(1000)}).to_parquet(file)
    whole = file.read_bytes()
    for content in (b"", b"x,y\n1,2\n", whole[:-30], whole[:100] + bytes(100) + whole[200:]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.parquet: it cannot be read"):
            data.read_parquet(file)
    pd.DataFrame({"x": []}).to_parquet(file)
    with pytest.raises(DataError, match="has no rows"):
        data.read_parquet(file)


def series(folder: Path, files: int = 1) -> Path:
    columns = {"values": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "label": [1, 0, 1]}
    return save_to_disk(folder, columns, files=files, label=CLASS_LABEL)


@pytest.mark.parametrize("files", [1, 2, 3])
def test_a_saved_data_set(tmp_path: Path, files: int) -> None:
    frame = data.read_datasets(series(tmp_path / "d", files))
    np.testing.assert_array_equal(data.arrays(frame, "values"), [[1, 2], [3, 4], [5, 6]])
    assert data.labels(frame, "label").tolist() == ["storm", "calm", "storm"]


def test_an_item_without_a_class(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "d", {"label": [0, -1, None]}, label=CLASS_LABEL)
    frame = data.read_datasets(tmp_path / "d")
    assert frame["label"].tolist()[0] == "calm"
    with pytest.raises(DataError, match="row 1, column 'label': no label"):
        data.labels(frame, "label")


def test_images_of_a_saved_data_set(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "1.png")
    content = (tmp_path / "1.png").read_bytes()
    columns = {"image": [{"bytes": content, "path": None}] * 2}
    frame = data.read_datasets(save_to_disk(tmp_path / "d", columns, image={"_type": "Image"}))
    assert data.images(frame, "image")[1, :, 0, 0].tolist() == [9, 8, 7]
    columns = {"image": [{"bytes": None, "path": str(tmp_path / "1.png")}]}
    frame = data.read_datasets(save_to_disk(tmp_path / "e", columns, image={"_type": "Image"}))
    with pytest.raises(DataError, match="holds no image"):
        data.images(frame, "image")


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"state\.json: no such file"):
        data.read_datasets(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match="several splits: 'train, test'"):
        data.read_datasets(tmp_path)


STATES = [
    ("[]", "holds a list"),
    ("{", "not readable as JSON"),
    ("[" * 100_000, "not readable as JSON"),
    ("{}", "no list of data files"),
    ('{"_data_files": 3}', "no list of data files"),
    ('{"_data_files": [{"filename": "../d/x.arrow"}]}', r"names '\.\./d/x\.arrow'"),
    ('{"_data_files": [{"filename": "/etc/passwd"}]}', "names '/etc/passwd'"),
    ('{"_data_files": [{"filename": ".."}]}', "no such file|names"),
    ('{"_data_files": [{"filename": "https://example.org/x.arrow"}]}', "names 'https"),
    ('{"_data_files": [{"filename": 3}]}', "names 3"),
    ('{"_data_files": [{"filename": "none.arrow"}]}', r"none\.arrow: no such file"),
    ('{"_data_files": [{"filename": "dataset_info.json"}]}', "cannot be read"),
]


@pytest.mark.parametrize(("state", "said"), STATES, ids=range(len(STATES)))
def test_a_state_that_lies(tmp_path: Path, state: str, said: str) -> None:
    folder = series(tmp_path / "d")
    (folder / "state.json").write_text(state)
    with pytest.raises(DataError, match=said):
        data.read_datasets(folder)


def test_features_that_lie_are_no_names(tmp_path: Path) -> None:
    folder = series(tmp_path / "d")
    for features in ([], {"label": 3}, {"label": {"names": 3, "_type": "ClassLabel"}}):
        (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
        assert data.read_datasets(folder)["label"].tolist() == [1, 0, 1]


def test_arrow_files_cut_or_changed_anywhere(tmp_path: Path) -> None:
    """One byte after another: rows come back, or a DataError says what is wrong."""
    columns = {"text": ["one", "two", None], "n": [1, 2, 3]}
    folder = save_to_disk(tmp_path / "d", columns)
    file = folder / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    refused = 0
    for i in range(0, len(whole), 5):
        changed = whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :]
        for content in (whole[:i], changed):
            file.write_bytes(content)
            try:
                frame = data.read_datasets(folder)
            except DataError:
                refused += 1
            else:
                assert len(frame) > 0
    assert refused > 50
