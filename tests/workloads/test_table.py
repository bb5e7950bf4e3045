"""The table of workloads: every entry can be called, and says where its data is."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from petra.config import parse_config
from petra.core.errors import ConfigError, DataError
from petra.sources import calls, resolve_source
from petra.workloads import kept, places
from petra.workloads.archives import LSTM_FCN, TSER, UCR
from petra.workloads.table import FAMILIES, PROBLEMS, WORKLOADS
from petra.workloads.tser import SETS as TSER_SETS
from petra.workloads.ucr import SETS as UCR_SETS
from petra.workloads.workload import Published


@pytest.mark.parametrize("workload", [*PROBLEMS, *FAMILIES], ids=lambda w: w.name)
def test_every_workload_takes_its_arguments(workload: object) -> None:
    function = workload.bound()  # type: ignore[attr-defined]
    inspect.signature(function).bind()
    assert inspect.getdoc(getattr(function, "func", function))


def test_the_archives_are_there_in_whole() -> None:
    assert set(UCR) == set(LSTM_FCN) == set(UCR_SETS)
    assert set(TSER) == set(TSER_SETS)
    assert len(WORKLOADS.names()) == len(PROBLEMS) + len(FAMILIES), "each has a name of its own"
    for workload in PROBLEMS:
        if workload.published is not None:
            assert workload.published.low <= workload.published.high
            assert len(workload.published.source) > 10


@pytest.mark.parametrize("name", [w.name for w in PROBLEMS if "minilm" in w.kept])
def test_sentences_are_kept_under_the_name_that_the_table_has(name: str) -> None:
    from petra.workloads.glue import TASKS
    from petra.workloads.minilm import Recipe

    record = WORKLOADS.get(name)
    task = str(record.args.get("task", "sst2"))
    assert Recipe(task).file_name.rpartition("-")[0] == record.kept
    known = TASKS[task]
    folder = f"glue/{known.folder}"
    assert record.files == (f"{folder}/train.tsv.gz", f"{folder}/{known.test}.tsv.gz")
    assert record.metric == record.args.get("metric", "accuracy")


def test_the_table_does_not_load_torch() -> None:
    code = (
        "import sys; from petra.workloads.table import PROBLEMS as all_; from petra.workloads.kept"
        " import kept_score; [kept_score(w.kept, w.metric) for w in all_]; print('torch' in"
        " sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_is_missing_is_said_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETRA_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"ucr/GunPoint\.npz: no such file") as caught:
        WORKLOADS.get("ucr/GunPoint")()
    assert str(tmp_path) in caught.value.message
    monkeypatch.setenv("PETRA_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"no data directory: looked at .*nowhere") as caught:
        WORKLOADS.get("etth1")()
    assert "forecasting/ETTh1.csv.gz" in caught.value.hint
    monkeypatch.delenv("PETRA_DATA")
    monkeypatch.chdir(tmp_path)
    assert places.known_root() is None
    (tmp_path / "data" / "ucr").mkdir(parents=True)
    assert places.known_root() == tmp_path / "data"
    assert places.missing(["ucr", "weights/a.pt"]) == ("weights/a.pt",)


def test_where_a_figure_lies() -> None:
    found = Published(0.9, 0.95, "somewhere")
    assert found.place(0.92, maximize=True) == "within"
    assert found.place(0.96, maximize=True) == found.place(0.8, maximize=False) == "better"
    assert found.place(0.96, maximize=False) == found.place(0.8, maximize=True) == "worse"


def test_scores_are_read_from_files_of_petras_alone(tmp_path: Path) -> None:
    (tmp_path / "ucr-Wafer-inception_time-0123.safetensors").write_bytes(b"no such file")
    assert kept.kept_score("ucr-Wafer-inception_time", "accuracy", cache=tmp_path) is None
    assert kept.kept_score("ucr-Wafer", "accuracy", cache=tmp_path) is None


def test_arguments_that_name_files_are_told_from_keys_of_tables() -> None:
    def called(**args: object) -> str:
        config = parse_config({"workload": {"name": "ucr", "args": args}, "budget": {"trials": 1}})
        return calls(config, [])

    assert called(name="Wafer", network="lstm_fcn", seed=3) == ""
    assert "/somewhere" in called(name="Wafer", data="/somewhere")


def test_wrong_arguments_are_refused_with_the_right_ones() -> None:
    config = parse_config(
        {"workload": {"name": "ucr/Wafer", "args": {"nam": "x"}}, "budget": {"trials": 1}}
    )
    with pytest.raises(ConfigError, match=r"workload\.args") as caught:
        resolve_source(config)
    assert "name: 'str' = 'Wafer'" in caught.value.hint
