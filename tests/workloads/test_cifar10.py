"""CIFAR-10 in every file format it is handed around in, and the pretrained networks on the real
images.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from petra.core.errors import DataError
from petra.training.loop import predict
from petra.workloads.augment import mirror, shift
from petra.workloads.cifar10 import augment, cifar10, cifar10_task, pixels, pretrained
from petra.workloads.cifar_files import read_arrays

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (50, 10))
Y_TRAIN, Y_TEST = (RNG.integers(0, 10, n) for n in (50, 10))


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def write_binary(folder: Path) -> None:
    for name, x, y in (
        *(
            (f"data_batch_{i + 1}.bin", TRAIN[10 * i : 10 * i + 10], Y_TRAIN[10 * i : 10 * i + 10])
            for i in range(5)
        ),
        ("test_batch.bin", TEST, Y_TEST),
    ):
        np.hstack([y[:, None].astype(np.uint8), planes(x)]).tofile(folder / name)


def write_python(folder: Path) -> None:
    for name, x, y in (
        *(
            (f"data_batch_{i + 1}", TRAIN[10 * i : 10 * i + 10], Y_TRAIN[10 * i : 10 * i + 10])
            for i in range(5)
        ),
        ("test_batch", TEST, Y_TEST),
    ):
        batch = {
            b"batch_label": b"some",
            b"labels": y.tolist(),
            b"data": planes(x),
            b"filenames": [b"a.png"],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def write_npz(folder: Path) -> None:
    np.savez(folder / "cifar10.npz", x_train=TRAIN, y_train=Y_TRAIN, x_test=TEST, y_test=Y_TEST)


@pytest.mark.parametrize("write", [write_binary, write_python, write_npz])
def test_every_format_gives_the_same_arrays(write: object, tmp_path: Path) -> None:
    write(tmp_path)  # type: ignore[operator]
    arrays = read_arrays(tmp_path)
    np.testing.assert_array_equal(arrays["x_train"], TRAIN)
    np.testing.assert_array_equal(arrays["y_train"], Y_TRAIN)
    np.testing.assert_array_equal(arrays["x_test"], TEST)
    np.testing.assert_array_equal(arrays["y_test"], Y_TEST)


def test_validation_is_set_aside_without_overlap(tmp_path: Path) -> None:
    write_npz(tmp_path)
    task = cifar10_task(tmp_path, val_items=20)
    train, val = task.train.head(100), task.val.head(100)
    assert len(train) == 30
    assert len(val) == 20
    rows = {t.numpy().tobytes() for t in train} | {t.numpy().tobytes() for t in val}
    assert rows == {t.numpy().tobytes() for t in pixels(TRAIN)}


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("true",))


def test_a_python_batch_that_would_run_code_is_refused(tmp_path: Path) -> None:
    write_python(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    with pytest.raises(DataError, match="do not trust it"):
        read_arrays(tmp_path)


def test_an_npz_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar10.npz", x_train=np.array([Evil()], dtype=object), y_train=Y_TRAIN)
    with pytest.raises(DataError, match="cannot be read: Object arrays"):
        read_arrays(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": TRAIN, "y_train": Y_TRAIN}, "x_test missing"),
        (
            {"x_train": TRAIN.astype(float), "y_train": Y_TRAIN, "x_test": TEST, "y_test": Y_TEST},
            "uint8",
        ),
        (
            {"x_train": TRAIN, "y_train": Y_TRAIN + 5, "x_test": TEST, "y_test": Y_TEST},
            "labels are 0..9",
        ),
        (
            {"x_train": TRAIN, "y_train": Y_TRAIN[:3], "x_test": TEST, "y_test": Y_TEST},
            "split 'train'",
        ),
    ],
)
def test_wrong_arrays_are_refused(
    arrays: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "cifar10.npz", **arrays)
    with pytest.raises(DataError, match=words):
        read_arrays(tmp_path)


def test_truncated_binary_and_absent_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no CIFAR-10 data found"):
        read_arrays(tmp_path)
    write_binary(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="not a multiple"):
        read_arrays(tmp_path)


def test_augmentation_moves_and_mirrors_without_inventing_pixels() -> None:
    images = pixels(TRAIN[:6])
    g = torch.Generator().manual_seed(0)
    moved = shift(images, 4, g)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    for before, after in zip(padded, moved, strict=True):
        crops = [before[:, i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
        assert any(torch.equal(after, crop) for crop in crops)
    flipped = mirror(images, g)
    assert all(
        torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(flipped, images, strict=True)
    )
    first, second = (augment(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "accuracy"),
    [
        ("resnet20", 0.917),
        pytest.param("resnet56", 0.9295, marks=pytest.mark.slow),
        ("resnet8", 0.8795),
    ],
)
def test_pretrained_accuracy_on_the_real_validation_images(
    data_root: Path, model: str, accuracy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETRA_DATA", str(data_root))
    net, task = cifar10(model=model)
    assert task.score(*predict(net, task.val)).mean == pytest.approx(accuracy, abs=5e-4)


def test_unknown_model_and_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="allowed: resnet20, resnet56, resnet8"):
        cifar10(model="resnet21")
    with pytest.raises(DataError, match="no such weights"):
        pretrained("resnet20", tmp_path / "absent.pt")
