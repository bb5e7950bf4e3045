"""The archives of series as workloads: splits, labels, training once; and the real sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_sets import save, write_series

from petra.core.errors import DataError
from petra.tasks.base import Task
from petra.tasks.inputs import call, prediction
from petra.training.loop import predict
from petra.workloads import tser, ucr
from petra.workloads.etth1 import BORDERS, HORIZON, MONTH, etth1_task, read_etth1
from petra.workloads.kept import kept_score
from petra.workloads.table import WORKLOADS


def rows(task: Task) -> dict[str, set[bytes]]:
    found = {}
    for name, split in task.splits():
        ((inputs, _),) = split.batches(10_000)
        assert isinstance(inputs, torch.Tensor)
        found[name] = {row.numpy().tobytes() for row in inputs}
        assert len(found[name]) == len(split)
    return found


@pytest.mark.parametrize(("name", "sizes"), [("Wafer", (36, 12, 30)), ("GunPoint", (48, 10, 20))])
def test_validation_is_cut_from_the_training_series_unless_they_are_too_few(
    root: Path, name: str, sizes: tuple[int, ...]
) -> None:
    task = ucr.ucr_task(name)
    found = rows(task)
    assert tuple(len(found[split]) for split in ("train", "val", "test")) == sizes
    assert len(set.union(*found.values())) == 78, "no series is in two splits, and none is left out"
    with np.load(root / "ucr" / f"{name}.npz") as file:
        given = {row.tobytes() for row in file["X_test" if name == "Wafer" else "X_train"]}
    assert found["test" if name == "Wafer" else "train"] == given
    for _, split in task.splits():
        labels = split.targets()
        assert labels is not None
        assert set(labels.tolist()) == {0, 1}
        assert abs(float(labels.double().mean()) - 0.5) < 0.05


def test_a_network_is_trained_once_and_its_score_is_kept(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = WORKLOADS.get("ucr/Wafer")
    assert kept_score(record.kept, record.metric) is None
    first, task = record()
    assert "training ucr-Wafer-inception_time: 4/4 steps" in capsys.readouterr().err
    score = kept_score(record.kept, record.metric)
    assert score is not None
    assert score.mean == task.score(*predict(first, task.test)).mean
    assert kept_score(record.kept, record.metric, {"seed": 0, "name": "Wafer"}) == score
    assert kept_score(record.kept, record.metric, {"seed": 1}) is None
    assert kept_score(record.kept, "roc_auc") is None, "nobody measured that"
    (path,) = (root / "cache").iterdir()
    stamp = path.stat().st_mtime_ns
    again, _ = record()
    assert path.stat().st_mtime_ns == stamp
    assert capsys.readouterr().err == ""
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("change", ["data", "seed", "epochs", "network"])
def test_whatever_decides_the_weights_names_the_file(
    root: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = WORKLOADS.get("ucr/Wafer")
    record()
    args: dict[str, object] = {}
    if change == "data":
        write_series(root / "ucr", "Wafer", train=52)
    elif change == "epochs":
        monkeypatch.setattr(ucr, "SETS", {"Wafer": ucr.UcrSet(2, 8)})
    else:
        args = {"seed": 1} if change == "seed" else {"network": "lstm_fcn"}
    record(**args)
    assert len([*(root / "cache").iterdir()]) == 2


def test_scores_that_other_data_gave_are_not_shown(root: Path) -> None:
    """Scores are kept beside the weights, so what they were measured on names the file, too."""
    record = WORKLOADS.get("ucr/Wafer")
    record()
    path = root / "ucr" / "Wafer.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "X_test": arrays["X_test"] + 1})
    model, task = record()
    assert len([*(root / "cache").iterdir()]) == 2
    score = kept_score(record.kept, record.metric)
    assert score is not None
    assert score.mean == task.score(*predict(model, task.test)).mean


def test_a_training_that_is_cut_off_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(state: object, place: Path, metadata: object) -> None:
        Path(place).write_bytes(b"half")
        raise KeyboardInterrupt

    record = WORKLOADS.get("ucr/Wafer")
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", cut_off)
        with pytest.raises(KeyboardInterrupt):
            record()
    assert [*(root / "cache").iterdir()] == []
    record()
    (path,) = (root / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="not weights of this model") as caught:
        record()
    assert "delete it to train again" in caught.value.hint


def test_where_nothing_can_be_kept_nothing_is_trained(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "cache").write_text("a file")
    with pytest.raises(DataError, match="trained weights cannot be kept there") as caught:
        WORKLOADS.get("ucr/Wafer")()
    assert "PETRA_CACHE" in caught.value.hint
    assert "training" not in capsys.readouterr().err


@pytest.mark.slow
def test_processes_that_train_one_at_once_come_to_the_same_file(root: Path) -> None:
    code = (
        "from petra.workloads import ucr; ucr.SETS = {'Wafer': ucr.UcrSet(1, 8)};"
        " model, _ = ucr.ucr(name='Wafer');"
        " print(sum(float(w.double().abs().sum()) for w in model.state_dict().values()))"
    )
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(sums) == 1
    (path,) = (root / "cache").iterdir()
    assert path.suffix == ".safetensors"
    stamp = path.stat().st_mtime_ns
    WORKLOADS.get("ucr/Wafer")()
    assert path.stat().st_mtime_ns == stamp


def test_a_regression_has_its_scales_and_missing_values_inside(root: Path) -> None:
    record = WORKLOADS.get("tser/Tecator")
    model, task = record()
    assert task.maximize == record.maximize
    assert kept_score(record.kept, record.metric) is not None
    assert {name: len(part) for name, part in rows(task).items()} == {
        "train": 32,
        "val": 8,
        "test": 20,
    }
    inputs = task.val.head(8)
    assert isinstance(inputs, torch.Tensor)
    assert inputs.isnan().any()
    with torch.no_grad():
        found = prediction(call(model, inputs))
    assert found.isfinite().all()
    assert 200 < float(found.mean()) < 400, "one epoch from the mean of the targets, 300"


def test_what_is_wrong_with_a_set_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'GunPoint'"):
        ucr.ucr(name="Gunpoint")
    with pytest.raises(DataError, match="unknown network 'fcn'"):
        ucr.ucr(name="Wafer", network="fcn")
    with pytest.raises(DataError, match="no such file") as caught:
        ucr.ucr_task("Wafer", data=str(tmp_path / "none.npz"))
    assert "PETRA_DATA" in caught.value.hint
    x, y = np.zeros((8, 5), np.float32), np.arange(8) % 2
    strange = save(tmp_path / "strange.npz", (x, y), (x, y + 1))
    with pytest.raises(DataError, match="test: label 2"):
        ucr.ucr_task("Wafer", data=str(strange))
    short = save(tmp_path / "short.npz", (x, y[:3]), (x, y))
    with pytest.raises(DataError, match=r"X_train has shape \(8, 5\), y_train has \(3,\)"):
        ucr.ucr_task("Wafer", data=str(short))
    np.savez(tmp_path / "other.npz", a=x)
    with pytest.raises(DataError, match="has no array 'X_train'"):
        tser.tser_parts("Tecator", data=str(tmp_path / "other.npz"))
    objects = np.array([{}, {}], dtype=object)
    save(tmp_path / "objects.npz", (objects, y[:2]), (x, y))
    with pytest.raises(DataError, match="cannot be read: Object arrays"):
        ucr.ucr_task("Wafer", data=str(tmp_path / "objects.npz"))
    save(tmp_path / "text.npz", (x, y), (x, y.astype(str)))
    with pytest.raises(DataError, match="X_test is float32, y_test is <U"):
        ucr.ucr_task("Wafer", data=str(tmp_path / "text.npz"))
    save(tmp_path / "longer.npz", (x, y), (np.zeros((8, 6)), y))
    with pytest.raises(DataError, match=r"series to train on are \(1, 5\), those to test \(1, 6\)"):
        ucr.ucr_task("Wafer", data=str(tmp_path / "longer.npz"))
    np.save(tmp_path / "one.npy", x)
    with pytest.raises(DataError, match="holds a single array"):
        ucr.ucr_task("Wafer", data=str(tmp_path / "one.npy"))


def test_hours_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petra.workloads.etth1.BORDERS", (6, 8, 10))
    lines = ["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT", *["2016,1,2,3,4,5,6,7"] * 10]
    lines[7] = "2016,1,2,,4,5,6,7"
    file = tmp_path / "ETTh1.csv"
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"ETTh1\.csv: line 8, column 'MUFL': no value"):
        read_etth1(file)
    file.write_text("\n".join(lines[:5]))
    with pytest.raises(DataError, match=r"ETTh1\.csv: 4 rows"):
        read_etth1(file)
    file.write_text("\n".join(line.replace("OT", "TO") for line in lines))
    with pytest.raises(DataError, match="no column 'OT'"):
        read_etth1(file)


# ---- the real sets -------------------------------------------------------------------------------


@pytest.fixture
def real(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PETRA_DATA", str(data_root))
    return data_root


@pytest.mark.parametrize("name", sorted(ucr.SETS))
def test_the_real_series_have_their_published_sizes(real: Path, name: str) -> None:
    shapes = {
        "GunPoint": (200, 150, 2), "ItalyPowerDemand": (1096, 24, 2),
        "SyntheticControl": (600, 60, 6), "ECG5000": (4999, 140, 5), "FaceAll": (2250, 131, 14),
        "Wafer": (7163, 152, 2), "ElectricDevices": (14850, 96, 7), "Crop": (23999, 46, 24),
    }  # fmt: skip
    task = ucr.ucr_task(name)
    items, length, classes = shapes[name]
    assert sum(len(split) for _, split in task.splits()) == items
    example, labels = task.example(1), task.train.targets()
    assert isinstance(example, torch.Tensor)
    assert labels is not None
    assert tuple(example.shape) == (1, 1, length)
    assert sorted(set(labels.tolist())) == [*range(classes)]


@pytest.mark.parametrize("name", sorted(tser.SETS))
def test_the_real_regressions_keep_their_test_series(real: Path, name: str) -> None:
    sizes = {
        "AppliancesEnergy": (76, 19, 41), "BeijingPM25": (9859, 2465, 5073),
        "FloodModeling1": (376, 95, 202), "Tecator": (137, 35, 43), "Covid3Month": (112, 28, 61),
    }  # fmt: skip
    parts = tser.tser_parts(name)
    assert tuple(len(parts[part][1]) for part in ("train", "val", "test")) == sizes[name]


def test_the_real_hours_are_split_as_usual(real: Path) -> None:
    task, record = etth1_task(context=336), WORKLOADS.get("etth1")
    assert (task.metrics()[0].name, task.maximize) == (record.metric, record.maximize)
    assert len(task.test) == 4 * MONTH - HORIZON + 1 == 2785
    assert len(task.val) == -(-2785 // 4)
    ((inputs, targets),) = task.test.batches(10_000)
    assert isinstance(inputs, torch.Tensor)
    assert tuple(inputs.shape) == (2785, 7, 336)
    assert torch.equal(inputs[HORIZON, :, -HORIZON:], targets[0])
    raw = read_etth1(real / "forecasting" / "ETTh1.csv.gz")
    months, first = raw[: 12 * MONTH], raw[BORDERS[1] : BORDERS[1] + HORIZON]
    expected = (first - months.mean(0)) / months.std(0)
    assert np.allclose(targets[0].T, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ucr/ItalyPowerDemand", "tser/Covid3Month"])
def test_a_real_baseline_is_as_good_as_others_report(real: Path, name: str, tmp_path: Path) -> None:
    record = WORKLOADS.get(name)
    model, task = record(cache=str(os.environ.get("PETRA_CACHE") or tmp_path))
    found = task.score(*predict(model, task.test))
    assert record.published is not None
    low, high = found.interval
    assert low <= record.published.high
    assert high >= record.published.low
