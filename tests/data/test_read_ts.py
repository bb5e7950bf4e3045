"""`.ts` files: written by an oracle and read back, and the line of what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from petra import data
from petra.core.errors import DataError

HEAD = "# made\n@problemName made\n@timeStamps false\n"


def write(path: Path, head: str, rows: list[str]) -> Path:
    path.write_text(f"{HEAD}{head}\n@data\n" + "\n".join(rows) + "\n")
    return path


def line(item: np.ndarray, target: str, gap: str = "?") -> str:
    """A series as the format writes it."""
    channels = [",".join(gap if np.isnan(v) else repr(float(v)) for v in row) for row in item]
    return ":".join([*channels, target])


def made(n: int, channels: int, lengths: list[int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    items = [random.normal(size=(channels, length)).astype(np.float32) for length in lengths]
    for item in items:
        item[random.random(item.shape) < 0.2] = np.nan
    return items[:n]


@pytest.mark.parametrize("gap", ["?", "NaN", "nan"])
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_length_with_classes(tmp_path: Path, channels: int, gap: str) -> None:
    items = made(6, channels, [5] * 6)
    labels = ["walk", "run", "1", "walk", "2.5", "run"]
    head = (
        f"@univariate {str(channels == 1).lower()}\n@dimensions {channels}\n@equalLength true\n"
        "@seriesLength 5\n@classLabel true walk run 1 2.5"
    )
    rows = [line(x, y, gap) for x, y in zip(items, labels, strict=True)]
    x, y = data.read_ts(write(tmp_path / "a.ts", head, rows))
    assert isinstance(x, np.ndarray)
    np.testing.assert_array_equal(x, np.stack(items))
    assert y.tolist() == labels


def test_unequal_length_with_targets(tmp_path: Path) -> None:
    items = made(4, 2, [3, 5, 1, 4])
    targets = [0.5, -3.0, 1e6, 0.0]
    rows = [line(x, repr(y)) for x, y in zip(items, targets, strict=True)]
    file = write(tmp_path / "a.ts", "@equalLength false\n@TARGETLABEL true", rows)
    x, y = data.read_ts(file)
    assert isinstance(x, list)
    for got, wanted in zip(x, items, strict=True):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(y, np.float32(targets))


def test_an_old_header_of_a_single_channel(tmp_path: Path) -> None:
    head = (
        "% aside\n@missing false\n@univariate true\n@seriesLength -1\n@other\n@classLabel true a b"
    )
    x, y = data.read_ts(write(tmp_path / "a.ts", head, ["1,2:a", "# aside", "", "3,4:b"]))
    assert np.asarray(x).tolist() == [[[1, 2]], [[3, 4]]]
    assert y.tolist() == ["a", "b"]


CLASSES = "@classLabel true a b"
BROKEN = [
    (CLASSES, ["1,2:a", "1,x:b"], "line 7, channel 1, value 2: 'x' is no number"),
    (CLASSES, ["1,2:3,4:a", "1,2:3:b"], "line 7: channel 2 has 1 values, channel 1 has 2"),
    (CLASSES, ["1,2:3,4:a", "1,2:b"], "line 7: 1 channels, those before have 2"),
    (f"@dimensions 3\n{CLASSES}", ["1,2:a"], "line 7: 1 channels, the header says 3"),
    (f"@univariate true\n{CLASSES}", ["1:2:a"], "line 7: 2 channels, the header says 1"),
    (f"@seriesLength 3\n{CLASSES}", ["1,2:a"], "line 7: 2 values, @seriesLength is 3"),
    (f"@equalLength true\n{CLASSES}", ["1,2:a", "1:b"], "line 8: 1 values, the first series has 2"),
    (CLASSES, ["1,2:a", "1,2:c"], "line 7: 'c' is no class of the header"),
    (CLASSES, ["1,2:a", "1,2:"], "line 7: '' is no class of the header"),
    (CLASSES, ["1,2"], "line 6: no colon"),
    (CLASSES, [], "no series after @data"),
    (CLASSES, ["1e39:a"], "line 6, channel 1, value 1: 1e+39 is beyond"),
    ("@targetLabel true", ["1,2:0.5", "1,2:?"], "line 7: no target"),
    ("@targetLabel true", ["1,2:many"], "line 6, the target: 'many' is no number"),
    ("@classLabel false", ["1,2:a"], "announces neither classes nor"),
    (f"{CLASSES}\n@targetLabel true", ["1,2:3"], "announces both classes and"),
    (f"@timeStamps true\n{CLASSES}", ["(0,1):a"], "have time stamps"),
    ("@equalLength maybe", [], "line 4: @equalLength is maybe"),
    ("@dimensions few", [], "line 4: @dimensions is 'few'"),
    ("stray", [], "line 4: 'stray' before @data"),
]


@pytest.mark.parametrize(("head", "rows", "said"), BROKEN, ids=range(len(BROKEN)))
def test_what_is_wrong_is_named(tmp_path: Path, head: str, rows: list[str], said: str) -> None:
    file = write(tmp_path / "a.ts", head, rows)
    with pytest.raises(DataError) as caught:
        data.read_ts(file)
    assert str(file) in caught.value.message
    assert said in caught.value.message
    assert caught.value.hint


def test_a_file_without_data(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(HEAD)
    with pytest.raises(DataError, match="no line @data"):
        data.read_ts(tmp_path / "a.ts")
