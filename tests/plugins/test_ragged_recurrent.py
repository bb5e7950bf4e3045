"""Recurrent encoders of items of different length, from intake to the measured file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ragged_classification import CLASSES, FACTS, KINDS, event_task
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import petra
from petra.core.interface import Interface
from petra.core.trial import TrialStatus
from petra.execute.reference import save_reference
from petra.intake import examine
from petra.measure.bench_main import predict
from petra.measure.client import write_split
from petra.measure.stored import load_arrays, load_split
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.runtimes.table import RUNTIMES
from petra.runtimes.verify import compare
from petra.tasks.base import Task
from petra.training.loop import TrainConfig, fit

ITEMS = 64


class Encoder(nn.Module):
    """Two directions over embedded events: the mean of all states, and the last ones, classified.
    The backward direction begins at an item's own end."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM] = nn.LSTM, width: int = 24) -> None:
        super().__init__()
        self.embed, self.amount = nn.Embedding(KINDS + 1, 8), nn.Linear(1, 8)
        self.rnn = kind(8, width, bidirectional=True, batch_first=True)
        self.hidden, self.head = nn.Linear(4 * width + FACTS, 32), nn.Linear(32, len(CLASSES))

    def forward(self, kinds: Tensor, amounts: Tensor, facts: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(kinds) + self.amount(amounts)
        lengths = mask.sum(1)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, state = self.rnn(packed)
        h = state[0] if isinstance(state, tuple) else state
        states, _ = pad_packed_sequence(out, batch_first=True)
        mean = states.sum(1) / lengths.unsqueeze(1)
        last = h.transpose(0, 1).flatten(1)
        logits: Tensor = self.head(torch.relu(self.hidden(torch.cat([mean, last, facts], 1))))
        return logits


def examined(kind: type[nn.GRU] | type[nn.LSTM]) -> tuple[nn.Module, Task, Interface]:
    task = event_task(96, ITEMS, ITEMS)
    torch.manual_seed(0)
    model = Encoder(kind)
    fit(model, task, TrainConfig(epochs=4, lr=0.02, optimizer="adamw", batch_size=32), seed=0)
    found = examine(model, task)
    return found.model, found.task, found.interface


@pytest.mark.parametrize(
    ("kind", "stages"),
    [
        pytest.param(nn.GRU, (), marks=pytest.mark.slow),
        (nn.GRU, (("prune.recurrent", {"ratio": 0.3}), ("quantize.dynamic", {}))),
        pytest.param(
            nn.LSTM,
            (("quantize.dynamic", {"recurrent": "dynamic"}),),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            nn.LSTM,
            (("quantize.static", {"samples": 128, "recurrent": "dynamic"}),),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_batches_and_items_agree_in_pytorch_and_in_the_file(
    kind: type[nn.GRU] | type[nn.LSTM], stages: tuple[tuple[str, Any], ...], tmp_path: Path
) -> None:
    model, task, interface = examined(kind)
    result = copy.deepcopy(model)
    for name, params in stages:
        context = Context(task, model, seed=0, interface=interface)
        result, trace = STAGES.get(name)(**params).apply(result, context)
        assert "rnn" in trace.touched
    runtime = RUNTIMES.get("onnxruntime")()
    (path,) = runtime.export(result, task.example(2), tmp_path / "model.onnx", interface)
    write_split(task.val, tmp_path / "val", interface)
    save_reference(
        result, tmp_path / "val", task.example(2), tmp_path / "reference.npz", items=ITEMS
    )
    split, session = load_split(tmp_path / "val"), runtime.load(path)
    reference = load_arrays(tmp_path / "reference.npz")["output"]
    predicted = predict(session, split)["output"]
    compare(predicted, reference, quantized=bool(stages), score=lambda x: float(x.mean()))
    tolerance = (0.1 if stages else 1e-5) * reference.std()
    lengths = task.val.source.ragged.lengths
    for item in np.argsort(lengths)[:: len(lengths) // 12]:
        inputs = split.items.batch(np.array([item]))
        assert inputs["mask"].shape == (1, lengths[item])
        with torch.no_grad():
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            expected = result(**tensors).numpy()
        alone = session.run(inputs)["output"]
        np.testing.assert_allclose(alone, expected, atol=tolerance)
        np.testing.assert_allclose(alone[0], predicted[item], atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_study(runtime: str, tmp_path: Path) -> None:
    model, task, _ = examined(nn.LSTM)
    pipelines = [
        [{"stage": "quantize.dynamic"}],
        [{"stage": "prune.recurrent", "params": {"ratio": 0.3}}, "quantize.weights"],
        [
            {"stage": "prune.recurrent", "params": {"ratio": 0.5}},
            {"stage": "distill", "params": {"epochs": 2}},
            {"stage": "quantize.dynamic"},
        ],
    ]
    if runtime == "onnxruntime":
        integers = {"recurrent": "dynamic"}
        pipelines += [
            [{"stage": kind, "params": integers}]
            for kind in ("quantize.dynamic", "quantize.static")
        ]
    study = petra.compress(
        model,
        task,
        target=runtime,
        budget={"trials": len(pipelines)},
        space={"initial": pipelines},
        workdir=tmp_path / "study",
    )
    assert [t.failure for t in study.trials if t.status is TrialStatus.FAILED] == []
