"""Real data through the readers: what the archives' arrays hold is what their text formats give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from petra import data


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def test_gunpoint_as_a_ucr_file(data_root: Path, tmp_path: Path) -> None:
    raw = arrays(data_root / "ucr" / "GunPoint.npz")
    lines = [
        "\t".join([str(y), *map(repr, x.tolist())])
        for x, y in zip(raw["X_train"], raw["y_train"], strict=True)
    ]
    (tmp_path / "GunPoint_TRAIN.tsv").write_text("\n".join(lines))
    x, y = data.read_ucr(tmp_path / "GunPoint_TRAIN.tsv")
    np.testing.assert_array_equal(x, raw["X_train"][:, None])
    assert y.tolist() == raw["y_train"].astype(str).tolist()


def test_air_quality_with_its_gaps(data_root: Path, tmp_path: Path) -> None:
    raw = arrays(data_root / "tser" / "BeijingPM25_rebuilt.npz")
    gaps = np.isnan(raw["X_train"]).any(axis=(1, 2))
    keep = np.concatenate([np.flatnonzero(gaps)[:40], np.flatnonzero(~gaps)[:40]])
    x, y = raw["X_train"][keep], raw["y_train"][keep]
    rows = [
        ":".join([*(",".join(map(repr, channel)) for channel in item.tolist()), repr(float(t))])
        for item, t in zip(x, y, strict=True)
    ]
    head = "@univariate false\n@equalLength true\n@missing true\n@targetlabel true\n@data\n"
    (tmp_path / "a.ts").write_text(head + "\n".join(rows))
    got, targets = data.read_ts(tmp_path / "a.ts")
    np.testing.assert_array_equal(got, x)
    np.testing.assert_array_equal(targets, y)
    z = data.Normalise.fit(got)(torch.from_numpy(np.asarray(got)))
    assert bool(z.isfinite().all())


def test_transformer_temperatures_as_a_table(data_root: Path) -> None:
    frame = data.read_csv(data_root / "forecasting" / "ETTh1.csv.gz")
    series = data.numbers(frame, ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"])
    assert series.shape == (17_420, 7)
    assert np.isfinite(series).all()
    parts = data.windows(
        series, context=336, horizon=96, stride=24, borders=(8_640, 11_520, 14_400)
    )
    assert [len(y) for _, y in parts] == [343, 117, 117]


def test_sentences_whose_quotation_marks_are_open(data_root: Path) -> None:
    frame = data.read_csv(data_root / "glue" / "MRPC" / "test.tsv.gz", separator="\t", quote=None)
    assert len(frame) == 1_725
    assert set(data.labels(frame, "label")) == {"0", "1"}
