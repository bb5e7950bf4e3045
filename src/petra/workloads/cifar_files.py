"""The file formats in which CIFAR-10 is handed around, all to the same arrays."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from petra.core.errors import DataError, MissingExtra
from petra.data import npz

Arrays = dict[str, np.ndarray]
_ITEM_BYTES = 1 + 3 * 32 * 32


def read_arrays(path: Path) -> Arrays:
    """x_SPLIT uint8 (n, 32, 32, 3) and y_SPLIT (n,) for the splits found.

    Raises DataError when nothing fits.
    """
    if path.is_file() and path.suffix == ".npz":
        return _checked(_npz(path, "x_", "y_"), path)
    if path.is_dir():
        for reader, probe in (
            (_binary, "data_batch_1.bin"),
            (_python, "data_batch_1"),
            (_mosaics, "train.webp"),
        ):
            if (path / probe).is_file():
                return _checked(reader(path), path)
        if (path / "cifar10.npz").is_file():
            return _checked(_npz(path / "cifar10.npz", "x_", "y_"), path)
    raise DataError(
        f"{path}: no CIFAR-10 data found",
        hint=(
            "allowed: the official binary or Python batches, an .npz with x_train, y_train, ...,"
            " train.webp mosaics"
        ),
    )


def _checked(arrays: Arrays, path: Path) -> Arrays:
    for split in {name[2:] for name in arrays}:
        x, y = arrays.get(f"x_{split}"), arrays.get(f"y_{split}")
        if x is None or y is None or x.shape != (len(y), 32, 32, 3) or x.dtype != np.uint8:
            shape = None if x is None else (x.dtype, x.shape)
            raise DataError(
                f"{path}: split {split!r} has images {shape}",
                hint="images are uint8 (n, 32, 32, 3)",
            )
        if len(y) and not (int(y.min()) >= 0 and int(y.max()) <= 9):
            raise DataError(
                f"{path}: split {split!r} has labels {y.min()}..{y.max()}", hint="labels are 0..9"
            )
    missing = {"x_train", "x_test"} - set(arrays)
    if missing:
        raise DataError(f"{path}: {', '.join(sorted(missing))} missing")
    return arrays


def _npz(path: Path, *kinds: str) -> Arrays:
    """The arrays whose names begin so."""
    return {name: array for name, array in npz.read_arrays(path).items() if name[:2] in kinds}


def _planes(flat: np.ndarray) -> np.ndarray:
    """(n, 3072) colour planes -> (n, 32, 32, 3)."""
    return np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _binary(folder: Path) -> Arrays:
    def read(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        raw = np.concatenate([np.fromfile(folder / name, dtype=np.uint8) for name in names])
        if len(raw) % _ITEM_BYTES:
            raise DataError(
                f"{folder}: {len(raw)} bytes are not a multiple of {_ITEM_BYTES}",
                hint="a truncated file?",
            )
        rows = raw.reshape(-1, _ITEM_BYTES)
        return _planes(rows[:, 1:]), rows[:, 0].astype(np.int64)

    train = sorted(p.name for p in folder.glob("data_batch_*.bin"))
    x_train, y_train = read(train)
    x_test, y_test = read(["test_batch.bin"])
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"a batch file uses the encoding {encoding!r}")
    return text.encode("latin1")


_ARRAY = np._core.multiarray._reconstruct  # type: ignore[attr-defined]


class _ArraysOnly(pickle.Unpickler):
    """Reads the official Python batches, which are pickles, and nothing that is not an array, a
    list or a string.
    """

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _ARRAY,
        ("numpy._core.multiarray", "_reconstruct"): _ARRAY,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise DataError(
                f"a batch file wants {module}.{name}",
                hint="not an official CIFAR-10 batch; do not trust it",
            )
        return self.ALLOWED[module, name]


def _python(folder: Path) -> Arrays:
    def read(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        images, labels = [], []
        for name in names:
            try:
                batch = _ArraysOnly(
                    io.BytesIO((folder / name).read_bytes()), encoding="bytes"
                ).load()
            except (pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
                raise DataError(
                    f"{folder / name}: not an official CIFAR-10 batch: {error}"
                ) from error
            images.append(_planes(batch[b"data"]))
            labels.append(np.asarray(batch[b"labels"], dtype=np.int64))
        return np.concatenate(images), np.concatenate(labels)

    x_train, y_train = read(sorted(p.name for p in folder.glob("data_batch_[0-9]")))
    x_test, y_test = read(["test_batch"])
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _mosaics(folder: Path) -> Arrays:
    """Lossless images of 100 pictures a row, with the labels in labels.npz."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", extra="images") from error
    arrays = _npz(folder / "labels.npz", "y_")
    for split in [name[2:] for name in arrays]:
        try:
            with Image.open(folder / f"{split}.webp") as image:
                mosaic = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise DataError(
                f"{folder}: no image of {split!r}: {error}", hint="is it whole?"
            ) from error
        rows, columns = mosaic.shape[0] // 32, mosaic.shape[1] // 32
        tiles = mosaic.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 1, 3, 4)
        arrays[f"x_{split}"] = np.ascontiguousarray(
            tiles.reshape(-1, 32, 32, 3)[: len(arrays[f"y_{split}"])]
        )
    return arrays
