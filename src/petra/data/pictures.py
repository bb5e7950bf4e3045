"""Folders of images, and images in tables, as arrays of pixels (the extra ``images``)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from petra.core.errors import ConfigError, DataError, MissingExtra
from petra.core.text import first_line, shown
from petra.data.frames import column_of, placer

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded: none that runs another program, as PostScript would."""

_BROKEN = (
    *(OSError, EOFError, struct.error, zlib.error, MemoryError),
    *(ValueError, SyntaxError, TypeError, LookupError, ArithmeticError),  # what broken tags become
)
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L")


def read_images(
    folder: str | Path, *, size: tuple[int, int] | None = None, colour: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Images in a folder for each class: uint8 (n, 3, height, width), or (n, 1, ...) without
    colour, and the names of their folders, text (n,).

    `size` is the (height, width) that they are resized to (bilinear, antialiased); without it they
    must be of one size. They come by class, then by name, and are turned as their EXIF says; of an
    animation the first picture is taken; what is transparent has the colour below. Other files and
    hidden ones are left out. Needs the extra ``images``. Raises DataError, naming the file, for one
    that cannot be decoded or has another size, and for classes without images.
    """
    _check_size(size)
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", hint="a folder that holds a folder per class")
    found = [
        (file, kind.name)
        for kind in sorted(path for path in root.iterdir() if path.is_dir() and _seen(path))
        for file in _images_of(kind)
    ]
    if not found:
        raise DataError(f"{root} holds no folders", hint="a folder per class, images in each")
    pixels = _decoded(((str(file), file) for file, _ in found), size, colour)
    return pixels, np.array([name for _, name in found])


def images(
    frame: pd.DataFrame,
    column: str,
    *,
    size: tuple[int, int] | None = None,
    colour: bool = True,
) -> np.ndarray:
    """A column of encoded images, as `read_datasets` and parquet files have them, as `read_images`
    gives them. Paths and addresses in the table are not followed.
    """
    _check_size(size)
    place = placer(frame, column)
    content = ((place(i), _bytes(v, place(i))) for i, v in enumerate(column_of(frame, column)))
    return _decoded(content, size, colour)


def _check_size(size: Any) -> None:
    pair = size if isinstance(size, tuple | list) else ()
    if size is not None and (
        len(pair) != 2 or any(not isinstance(side, Integral) or side < 1 for side in pair)
    ):
        raise ConfigError(f"size: {shown(size)}", hint="(height, width) in pixels, or None")


def _seen(path: Path) -> bool:
    return not path.name.startswith(".")


def _images_of(kind: Path) -> list[Path]:
    files = sorted(
        p for p in kind.iterdir() if _seen(p) and p.suffix.lower() in SUFFIXES and p.is_file()
    )
    if not files:
        inner = next((p for p in sorted(kind.iterdir()) if p.is_dir() and _seen(p)), None)
        raise DataError(
            f"{kind} holds no images",
            hint=f"images lie in it, as {', '.join(SUFFIXES)}"
            if inner is None
            else f"to read one split: read_images({str(kind)!r})",
        )
    return files


def _bytes(value: Any, where: str) -> io.BytesIO:
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(content, bytes):
        raise DataError(
            f"{where}: {shown(value, 60)} holds no image",
            hint="the content of a file, in itself or under 'bytes'; a path alone is not followed",
        )
    return io.BytesIO(content)


def _decoded(
    files: Iterable[tuple[str, Path | io.BytesIO]], size: tuple[int, int] | None, colour: bool
) -> np.ndarray:
    """All images (n, channels, height, width), from a name for messages and a file or content."""
    found: list[np.ndarray] = []
    for where, file in files:
        found.append(_pixels(file, where, size, "RGB" if colour else "L"))
        if found[-1].shape != found[0].shape:
            shapes = ["{1}x{0}".format(*image.shape[1:]) for image in (found[-1], found[0])]
            raise DataError(
                f"{where} is {shapes[0]}, the first image {shapes[1]}",
                hint="images of several sizes are resized to one: size=(height, width)",
            )
    if not found:
        raise DataError("there are no images", hint="give at least one row")
    return np.stack(found)


def _pixels(
    file: Path | io.BytesIO, where: str, size: tuple[int, int] | None, mode: str
) -> np.ndarray:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingExtra("pillow", extra="images") from None
    try:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.mode in _DEEP:
                raise DataError(
                    f"{where} has more than 8 bits a channel",
                    hint="bring it to 0..255 first: which range matters, only you can say",
                )
            image = ImageOps.exif_transpose(opened).convert(mode)
            if size is not None:
                image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            array = np.asarray(image)
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(
            f"{where}: no image that can be decoded: {first_line(str(error))}",
            hint=f"one of {', '.join(FORMATS)}, whole",
        ) from error
    return np.ascontiguousarray(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1))
