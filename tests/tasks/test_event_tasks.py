"""Sequences of events and of tokens need no task of their own: classification and regression with
`petra.ragged`, from what people bring to what the file computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import petra
from petra.core.errors import DataError
from petra.execute.reference import save_reference
from petra.intake import examine
from petra.measure.bench_main import predict
from petra.measure.client import write_split
from petra.measure.stored import load_arrays, load_split
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.runtimes.table import RUNTIMES
from petra.tasks.base import Task
from petra.tasks.inputs import call
from petra.testing.measures_suites import TaskSuite
from petra.training.loop import TrainConfig, fit, predict_all

KINDS, PLACES, NUMERIC, STATIC = 5, 3, 2, 2
EVENTS = petra.Padding(mask="mask")
TOKENS = petra.Padding(mask="attention_mask", mask_type="int64")


def histories(n: int, *, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Events by customer: two categories, counted from 1, an amount and the days since the last
    event, and facts of the customer; and what is asked: the kinds that are 2, times the mean gap.
    """
    random = np.random.default_rng(seed)
    lengths = 3 + random.integers(0, 40, n)
    kinds = [random.integers(1, KINDS + 1, length) for length in lengths]
    places = [random.integers(1, PLACES + 1, length) for length in lengths]
    pace = random.uniform(0.5, 2.0, n)
    numeric = [
        np.stack([random.normal(size=length), random.exponential(p, length)], 1)
        for length, p in zip(lengths, pace, strict=True)
    ]
    facts = random.normal(size=(n, STATIC)).astype(np.float32)
    target = np.array(
        [(k == 2).mean() * 4 + x[:, 1].mean() for k, x in zip(kinds, numeric, strict=True)]
    )
    return {"kind": kinds, "place": places, "numeric": numeric, "static": facts}, target


class EventNet(nn.Module):
    """Masked mean of embedded events, beside the facts."""

    def __init__(self, outputs: int, width: int = 16) -> None:
        super().__init__()
        self.kinds, self.places = nn.Embedding(KINDS + 1, width), nn.Embedding(PLACES + 1, width)
        self.numeric, self.event = nn.Linear(NUMERIC, width), nn.Linear(width, width)
        self.head = nn.Sequential(nn.Linear(width + STATIC, 32), nn.ReLU(), nn.Linear(32, outputs))

    def forward(
        self, kind: Tensor, place: Tensor, numeric: Tensor, static: Tensor, mask: Tensor
    ) -> Tensor:
        inside = mask.unsqueeze(-1).to(numeric.dtype)
        x = torch.relu(self.kinds(kind) + self.places(place) + self.numeric(numeric))
        x = torch.relu(self.event(x)) * inside
        mean = x.sum(1) / inside.sum(1)
        y: Tensor = self.head(torch.cat([mean, static], 1))
        return y


def events_task(*, classes: bool) -> Task:
    """Of values, or of whether they are among the largest fifth."""
    given = [histories(n, seed=i) for i, n in enumerate((400, 150, 150))]
    if not classes:
        splits = [petra.ragged(x, y, padding=EVENTS) for x, y in given]
        return petra.regression(*splits, metrics=["r2", "spearman"])
    splits = [petra.ragged(x, (y > 2.2).astype(int), padding=EVENTS) for x, y in given]
    names = ["average_precision", "balanced_accuracy", "f1"]
    return petra.classification(*splits, metric="roc_auc", metrics=names, weights="balanced")


@pytest.fixture(scope="module", params=["classes", "values"])
def problem(request: pytest.FixtureRequest) -> tuple[nn.Module, Task]:
    pytest.importorskip("torchmetrics")
    torch.manual_seed(0)
    classes = request.param == "classes"
    model, task = EventNet(2 if classes else 1), events_task(classes=classes)
    fit(model, task, TrainConfig(epochs=8, lr=0.02, optimizer="adamw", batch_size=32), seed=0)
    return model, task


class TestEvents(TaskSuite):
    @pytest.fixture
    def problem(self, problem: tuple[nn.Module, Task]) -> tuple[nn.Module, Task]:
        return problem


def test_events_are_learnt_and_judged(problem: tuple[nn.Module, Task]) -> None:
    model, task = problem
    examined = examine(model, task)
    assert {spec.name: spec.names for spec in examined.interface.inputs} == {
        "kind": ("batch", "length"),
        "place": ("batch", "length"),
        "numeric": ("batch", "length", ""),
        "static": ("batch", ""),
        "mask": ("batch", "length"),
    }
    found = task.scores(*predict_all(model.eval(), task.test))
    assert all(measured.stderr > 0 for measured in found.values())
    if task.maximize:
        assert found["quality"].mean > 0.85
        assert found["average_precision"].mean > 0.6
    else:
        assert found["r2"].mean > 0.7


def test_the_file_agrees_at_every_length(problem: tuple[nn.Module, Task], tmp_path: Path) -> None:
    """Padded among others as alone, like the PyTorch model: of classes, the quantized one."""
    given, task = problem
    examined = examine(given, task)
    model, interface = examined.model, examined.interface
    if task.maximize:
        context = Context(task, model, seed=0, interface=interface)
        stage = STAGES.get("quantize.static")(samples=128)
        model, _ = stage.apply(examine(given, task).model, context)
    runtime = RUNTIMES.get("onnxruntime")()
    (path,) = runtime.export(model, task.example(2), tmp_path / "model.onnx", interface)
    write_split(task.val, tmp_path / "val", interface)
    save_reference(model, tmp_path / "val", task.example(2), tmp_path / "reference.npz")
    split, session = load_split(tmp_path / "val"), runtime.load(path)
    predicted = predict(session, split)["output"]
    reference = load_arrays(tmp_path / "reference.npz")["output"]
    spread = float(reference.std())
    np.testing.assert_allclose(predicted, reference, atol=0.03 * spread)
    for item in np.argsort(split.items.lengths)[::15]:
        alone = session.run(split.items.batch(np.array([item])))["output"]
        np.testing.assert_allclose(alone[0], predicted[item], atol=0.03 * spread)


# -- forms that events come in -----------------------------------------------------------------


def batch_of(source: Any) -> dict[str, Tensor]:
    inputs, _ = source.take(torch.arange(6))
    return dict(inputs)


def test_columns_of_arrays_and_flat_columns_are_lists_of_items() -> None:
    """As parquet files have them, as `groupby` leaves them, and as offsets say."""
    inputs, target = histories(6, seed=3)
    expected = batch_of(petra.ragged(inputs, target, padding=EVENTS))
    names = ["kind", "place", "numeric"]
    columns = {name: pd.Series(inputs[name], dtype=object) for name in names}
    objects = {name: column.to_numpy() for name, column in columns.items()}
    flat = {name: np.concatenate(inputs[name]) for name in names}
    lengths = columns["kind"].map(len)
    for given, known in ((columns, None), (objects, None), (flat, lengths)):
        made = petra.ragged(
            {**given, "static": inputs["static"]}, target, lengths=known, padding=EVENTS
        )
        found = batch_of(made)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_events_in_a_table_of_numbers_and_codes() -> None:
    """Rows one after another, sorted by customer: only the lengths are needed."""
    inputs, target = histories(6, seed=3)
    table = pd.DataFrame(
        {
            "customer": np.repeat(np.arange(6), [len(k) for k in inputs["kind"]]),
            "kind": pd.Categorical.from_codes(
                np.concatenate(inputs["kind"]) - 1, categories=list("abcde")
            ),
            "amount": np.concatenate(inputs["numeric"])[:, 0],
        }
    )
    made = petra.ragged(
        {
            "kind": table["kind"].cat.codes.astype("int64") + 1,
            "amount": table[["amount"]],
        },
        target,
        lengths=table.groupby("customer").size(),
        padding=EVENTS,
    )
    found, expected = batch_of(made), batch_of(petra.ragged(inputs, target, padding=EVENTS))
    assert torch.equal(found["kind"], expected["kind"])
    assert torch.equal(found["amount"], expected["numeric"][..., :1])


def test_categories_of_small_integers_are_named() -> None:
    inputs, target = histories(60, seed=3)
    small = {**inputs, "place": [p.astype(np.int8) for p in inputs["place"]]}
    task = petra.regression(*(petra.ragged(small, target, padding=EVENTS) for _ in range(3)))
    with pytest.raises(DataError) as caught:
        examine(EventNet(1), task)
    assert "place is torch.int8: give categories as int64" in str(caught.value.hint)


# -- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "ragged"])
@pytest.mark.parametrize("classes", [1, 2, 3], ids=["score", "two", "three"])
def test_sentence_pairs_are_classified_and_scored(classes: int, padded: bool) -> None:
    """Token ids, masks and segments by name, into a sequence classifier of Hugging Face."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchmetrics")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24, num_labels=classes,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    random = np.random.default_rng(0)
    splits = []
    for n in (64, 40, 40):
        lengths = random.integers(4, 20, n)
        ids = [random.integers(1, 30, k) for k in lengths]
        segments = [(np.arange(k) >= k // 2).astype(np.int64) for k in lengths]
        target: Any = random.uniform(0, 5, n) if classes == 1 else random.integers(0, classes, n)
        made = petra.ragged({"input_ids": ids, "token_type_ids": segments}, target, padding=TOKENS)
        splits.append(made.take(torch.arange(n)) if padded else made)
    if classes == 1:
        task: Task = petra.regression(*splits, metric="pearson", metrics=["spearman", "rmse"])
    else:
        task = petra.classification(*splits, metric="matthews", metrics=["accuracy", "f1"])
    examined = examine(model, task)
    assert {spec.name for spec in examined.interface.inputs} == {
        "input_ids", "token_type_ids", "attention_mask"
    }  # fmt: skip
    assert bool(examined.interface.lengths) != padded
    fit(examined.model, task, TrainConfig(epochs=1, lr=1e-3, optimizer="adamw"), seed=0)
    outputs, targets = predict_all(examined.model, task.test)
    found = task.scores(outputs, targets)
    assert all(np.isfinite(measured.mean) for measured in found.values())
    inputs = task.example(2)
    assert call(examined.model, inputs).logits.shape == (2, classes)  # type: ignore[attr-defined]
