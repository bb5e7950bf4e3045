"""Folders of images: pixels and classes as they lie there, and the file of what is wrong."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from petra import data
from petra.core.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def picture(seed: int, height: int = 4, width: int = 6, *, colour: bool = True) -> np.ndarray:
    shape = (height, width, 3) if colour else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_pixels_and_classes(tmp_path: Path) -> None:
    for i, name in enumerate(["dog/b.png", "cat/a.PNG", "dog/a.bmp"]):
        save(tmp_path / name, picture(i))
    (tmp_path / "dog" / "folder.png").mkdir()
    for junk in ("dog/notes.txt", "dog/.a.png", ".hidden/x.png", "readme.txt"):
        (tmp_path / junk).parent.mkdir(exist_ok=True)
        (tmp_path / junk).write_text("no image")
    x, y = data.read_images(tmp_path)
    assert x.dtype == np.uint8
    assert y.tolist() == ["cat", "dog", "dog"]
    np.testing.assert_array_equal(x.transpose(0, 2, 3, 1), [picture(1), picture(2), picture(0)])


def test_grey_and_resized(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", picture(0, colour=False))
    save(tmp_path / "b" / "2.png", picture(1, 8, 8))
    with pytest.raises(DataError, match=r"2\.png is 8x8, the first image 6x4"):
        data.read_images(tmp_path)
    x, _ = data.read_images(tmp_path, size=(5, 7))
    assert x.shape == (2, 3, 5, 7)
    x, _ = data.read_images(tmp_path, size=(4, 6), colour=False)
    assert x.shape == (2, 1, 4, 6)
    np.testing.assert_array_equal(x[0, 0], picture(0, colour=False))
    for size in ((0, 3), 224, (3.5, 3), "ab", (1, 2, 3)):
        with pytest.raises(ConfigError, match="size"):
            data.read_images(tmp_path, size=size)  # type: ignore[arg-type]


def test_images_are_turned_as_their_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    save(tmp_path / "a" / "1.png", picture(0), exif=exif)
    x, _ = data.read_images(tmp_path)
    np.testing.assert_array_equal(x[0].transpose(1, 2, 0), np.rot90(picture(0), -1))


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        data.read_images(tmp_path / "none")
    with pytest.raises(DataError, match="holds no folders"):
        data.read_images(tmp_path)
    save(tmp_path / "train" / "cat" / "1.png", picture(0))
    with pytest.raises(DataError, match="train holds no images") as caught:
        data.read_images(tmp_path)
    assert "to read one split" in caught.value.hint
    broken = tmp_path / "train" / "cat" / "2.png"
    whole = (tmp_path / "train" / "cat" / "1.png").read_bytes()
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\nshowpage\n"
    for content in (b"", b"no image", whole[:40], whole[:-40], whole[:60] + bytes(40), script):
        broken.write_bytes(content)
        with pytest.raises(DataError, match=r"2\.png: no image that can be decoded"):
            data.read_images(tmp_path / "train")
    save(broken, np.zeros((4, 6), dtype=np.uint16))
    with pytest.raises(DataError, match="more than 8 bits"):
        data.read_images(tmp_path / "train")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", picture(0))
    whole = (tmp_path / "a" / "1.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 40_000, 10_000) + whole[24:29]
    lying = whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    (tmp_path / "a" / "1.png").write_bytes(lying)
    with pytest.raises(DataError, match=r"1\.png: no image that can be decoded"):
        data.read_images(tmp_path)


def test_images_in_a_table(tmp_path: Path) -> None:
    save(tmp_path / "1.png", picture(0))
    content = (tmp_path / "1.png").read_bytes()
    frame = pd.DataFrame({"image": [{"bytes": content, "path": "x.png"}, content]})
    x = data.images(frame, "image")
    np.testing.assert_array_equal(x[1].transpose(1, 2, 0), picture(0))
    for value in ({"bytes": None, "path": str(tmp_path / "1.png")}, str(tmp_path / "1.png"), None):
        frame = pd.DataFrame({"image": [content, value]})
        with pytest.raises(DataError, match=r"row 1, column 'image': .* holds no image"):
            data.images(frame, "image")
    with pytest.raises(DataError, match="no images"):
        data.images(frame[:0], "image")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_tags_are_no_crash(tmp_path: Path) -> None:
    """Bytes of a camera's tags changed one after another: pixels, or a DataError."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    save(tmp_path / "a" / "1.png", picture(0), exif=exif)
    file = tmp_path / "a" / "1.png"
    whole = file.read_bytes()
    start = whole.index(b"eXIf")
    length = int.from_bytes(whole[start - 4 : start], "big")
    for i in range(start + 4, start + 4 + length):
        for value in (0, 0x7F, 0xFF):
            body = whole[start:i] + bytes([value]) + whole[i + 1 : start + 4 + length]
            checked = body + struct.pack(">I", zlib.crc32(body))
            file.write_bytes(whole[:start] + checked + whole[start + 4 + length + 4 :])
            try:
                x, _ = data.read_images(tmp_path)
            except DataError:
                continue
            assert x.dtype == np.uint8
