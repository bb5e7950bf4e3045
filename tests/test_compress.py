"""`petra.compress` as its users call it: live objects of every shape, real stages, real files on
both runtimes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, Dataset

import petra
from petra.core.trial import TrialStatus
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.base import Task
from petra.workloads.digits import DigitsNet

pytestmark = pytest.mark.timeout(900)


class TwoTables(Dataset):  # type: ignore[type-arg]
    """Items with a dict of inputs of different types and a real target, without in-memory tensors
    to shortcut to.
    """

    def __init__(self, n: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.codes = torch.randint(0, 9, (n, 3), generator=g)
        self.values = torch.randn(n, 4, generator=g)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, i: int) -> tuple[dict[str, Tensor], Tensor]:
        target = self.codes[i].float().mean() + self.values[i].sum()
        return {"codes": self.codes[i], "values": self.values[i]}, target


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 16)
        self.body = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 1)

    def forward(self, codes: Tensor, values: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(torch.cat([self.embedding(codes).mean(1), values], 1)))
        return y


def regression_problem() -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    model = TwoTowers()
    train = DataLoader(TwoTables(256, 0), batch_size=32, shuffle=True)
    task = petra.regression(train, DataLoader(TwoTables(96, 1), batch_size=32), TwoTables(96, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(15):
        for inputs, target in train:
            optimizer.zero_grad()
            task.loss()({"output": model(**inputs)}, target).backward()
            optimizer.step()
    return model.eval(), task


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_regression_with_dict_inputs_from_loaders(tmp_path: Path, runtime: str) -> None:
    model, task = regression_problem()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    initial = [
        ["quantize.static"],
        [{"stage": "prune.structured", "params": {"ratio": 0.5, "round_to": 8}}, "tune"],
    ]
    study = petra.compress(
        model,
        task,
        target={"runtime": runtime},
        budget={"trials": 2},
        space={
            "stages": {"prune.structured": {}, "tune": {}, "quantize.static": {}},
            "initial": initial,
        },
        workdir=tmp_path / "study",
    )
    baseline, quantized, pruned = study.trials
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()), (
        "the user's model was modified"
    )
    assert [t.status for t in study.trials] == [TrialStatus.COMPLETE] * 3
    assert (
        quantized.metrics["size_bytes"].mean < baseline.metrics["size_bytes"].mean
        or runtime == "torch"
    )
    assert pruned.metrics["params"].mean < 0.6 * baseline.metrics["params"].mean
    assert pruned.metrics["macs"].mean < baseline.metrics["macs"].mean
    assert baseline.metrics["quality"].unit == "rmse"
    exported = study.front.pick("smallest").export(
        tmp_path / f"small{'.onnx' if runtime == 'onnxruntime' else '.pt2'}"
    )
    assert exported.stat().st_size == min(t.metrics["size_bytes"].mean for t in study.front.members)


@pytest.fixture(scope="module")
def digits_study(
    tmp_path_factory: pytest.TempPathFactory, digits_problem: tuple[DigitsNet, Task]
) -> petra.Study:
    """A study of real data with one pipeline of every stage."""
    cut = {"stage": "prune.structured", "params": {"ratio": 0.3, "round_to": 4}}
    initial = [
        [{"stage": "quantize.static", "params": {"observer": "minmax"}}],
        [
            cut,
            "repair.reconstruct",
            {"stage": "tune", "params": {"epochs": 2, "batch_size": 64}},
            "quantize.static",
        ],
        ["prune.depth", {"stage": "distill", "params": {"epochs": 1, "features": 1.0}}],
        [{"stage": "lowrank.svd", "params": {"rule": "ratio", "ratio": 0.2, "unfold": "spatial"}}],
    ]
    model, task = digits_problem
    return petra.compress(
        model,
        task,
        budget={"trials": 4},
        space={"initial": initial},
        limits={"trial_time": "10 min"},
        workdir=tmp_path_factory.mktemp("digits"),
    )


def test_every_stage_ends_in_a_measured_file_or_a_reason(digits_study: petra.Study) -> None:
    trials = digits_study.trials
    assert len(trials) == 5
    assert trials[0].metrics["quality"].mean > 0.8
    for trial in trials:
        if trial.failure is not None:
            assert trial.failure.kind == "StageRefused", trial.failure
            continue
        wanted = {
            "quality",
            "latency_ms",
            "latency_p95_ms",
            "latency_ratio",
            "size_bytes",
            "params",
        }
        assert wanted | {"macs", "memory_mb", "train_s"} <= set(trial.metrics)
        assert (digits_study.directory / trial.artifact).stat().st_size == trial.metrics[
            "size_bytes"
        ].mean
        assert trial.parity["relative_error"] < 0.05
        assert len(trial.trace) == len(trial.pipeline)
    assert "throughput" in trials[0].metrics
    assert all("throughput" in t.test for t in digits_study.front.members), "asked for at the end"
    assert trials[1].measured
    assert trials[2].measured
    assert trials[1].metrics["size_bytes"].mean < 0.5 * trials[0].metrics["size_bytes"].mean


def test_quality_is_that_of_the_file(
    digits_study: petra.Study, digits_problem: tuple[DigitsNet, Task]
) -> None:
    """Measured again here, by hand, from the artifact alone."""
    _, task = digits_problem
    for trial in digits_study.trials:
        if not trial.measured:
            continue
        session = OnnxRuntime().load(digits_study.directory / trial.artifact)
        hits = total = 0
        for inputs, target in task.val.batches(50):
            assert isinstance(inputs, Tensor)
            (logits,) = session.run({"input": inputs.numpy()}).values()
            hits += int((logits.argmax(1) == target.numpy()).sum())
            total += len(target)
        assert trial.metrics["quality"].mean == pytest.approx(hits / total)


def test_the_front_is_confirmed_on_the_test_split(digits_study: petra.Study) -> None:
    front = digits_study.front
    assert front.members
    assert all(t.test["quality"].n == 360 for t in front.members)
    assert "accuracy" in str(front)
    assert len(front.table()) >= len(front.members)


def test_an_exported_bundle_stands_alone(digits_study: petra.Study, tmp_path: Path) -> None:
    path = digits_study.front.pick("smallest").export(tmp_path / "bundle")
    session = OnnxRuntime().load(path)
    assert np.isfinite(
        next(iter(session.run({"input": np.zeros((3, 1, 8, 8), np.float32)}).values()))
    ).all()
    names = {p.name for p in path.parent.iterdir()}
    assert {"pipeline.yaml", "metrics.json", "parity.json", "MODEL_CARD.md"} <= names
    json.loads((path.parent / "metrics.json").read_text())


@pytest.mark.slow
def test_two_workers_propose_what_one_does(
    tmp_path: Path, digits_problem: tuple[DigitsNet, Task]
) -> None:
    """Real candidates side by side: the proposals of the first generation, and every measurement,
    are there.
    """
    model, task = digits_problem
    studies = [
        petra.compress(
            model,
            task,
            budget={"generations": 1},
            search={"name": "evolution", "population": 5},
            space={
                "stages": {"tune": {"epochs": 1}, "quantize.static": {}, "prune.structured": {}}
            },
            limits={"workers": workers},
            workdir=tmp_path / str(workers),
        )
        for workers in (1, 2)
    ]
    one, two = ([t.pipeline for t in s.trials] for s in studies)
    assert one == two
    for a, b in zip(studies[0].trials, studies[1].trials, strict=True):
        assert a.status == b.status
        if a.measured:
            assert a.metrics["size_bytes"] == b.metrics["size_bytes"]


class CausalNet(nn.Module):
    """A temporal convolution with weight normalisation, as time series have it, that keeps what it
    computed last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.weight_norm(nn.Conv1d(3, 16, 3))
        self.b = parametrizations.weight_norm(nn.Conv1d(16, 16, 3, dilation=2))
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 1)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(nn.functional.pad(x, (2, 0))))
        self.last = torch.relu(self.norm(self.b(nn.functional.pad(x, (4, 0)))))
        y: Tensor = self.head(self.last[:, :, -1])
        return y


@pytest.mark.slow
def test_models_and_data_as_people_bring_them(tmp_path: Path) -> None:
    """Computed weights, a tensor of a pass on the model, persistent workers, an item left over, an
    error of nothing.
    """
    torch.manual_seed(0)
    model, x = CausalNet(), torch.randn(161, 3, 24)
    for _ in range(30):
        model.train()(x)
    y = model.eval()(x).detach().numpy().astype("float64")  # `last` has a history now
    model.train()
    parts = [Series(x[a:b].double().numpy(), y[a:b]) for a, b in ((0, 81), (81, 122), (122, 161))]
    loaders = [DataLoader(p, batch_size=20, num_workers=1, persistent_workers=True) for p in parts]
    next(iter(loaders[0]))
    cut = {"stage": "prune.structured", "params": {"ratio": 0.3, "round_to": 4}}
    study = petra.compress(
        model,
        petra.regression(*loaders),
        budget={"trials": 2},
        space={"initial": [["quantize.static"], [cut, {"stage": "tune", "params": {"epochs": 1}}]]},
        workdir=tmp_path / "study",
    )
    assert [t.status for t in study.trials] == [TrialStatus.COMPLETE] * 3, [
        t.failure for t in study.trials
    ]
    baseline, quantized, pruned = study.trials
    assert baseline.metrics["quality"].mean < 1e-5
    assert 0 < quantized.metrics["quality"].mean < 0.05 * float(y.std()) + 0.05
    assert pruned.metrics["params"].mean < baseline.metrics["params"].mean
    assert model.training
    assert isinstance(model.a, nn.Conv1d)
    assert type(model.a) is not nn.Conv1d, "the user's layer lost its parametrization"
    loaders[0]._iterator._shutdown_workers()  # type: ignore[union-attr]


class Series(Dataset):  # type: ignore[type-arg]
    """float64 NumPy items, the target under a name."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, object]:
        return {"series": self.x[i], "target": self.y[i]}
