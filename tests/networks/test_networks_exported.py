"""The networks as ONNX Runtime's files, with axes that stay free, and trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra.core.interface import LENGTH, Axis, Interface
from petra.networks.events import EventGRU, EventTransformer
from petra.networks.inception_time import InceptionTime
from petra.networks.lstm_fcn import LSTMFCN
from petra.networks.patch_transformer import PatchTransformer
from petra.networks.resnet import CifarResNet
from petra.networks.tcn import TCN
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs, batch_interface, call, named
from petra.tasks.regression import regression
from petra.training.config import TrainConfig
from petra.training.loop import fit

CATEGORIES = {"type": 10, "keys": 20}
Draw = Callable[[int, int], Inputs]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def series(n: int, length: int) -> Tensor:
    return torch.randn(n, 2, length)


def events(n: int, length: int) -> Inputs:
    mask = torch.arange(length) < torch.randint(1, length + 1, (n, 1))
    found = {k: torch.randint(1, size, (n, length)) * mask for k, size in CATEGORIES.items()}
    numeric = torch.randn(n, length, 2) * mask[..., None]
    return {**found, "numeric": numeric, "mask": mask, "static": torch.randn(n, 3)}


def free_lengths(example: Inputs, axes: Mapping[str, int]) -> Interface:
    found = batch_interface(example)
    specs = []
    for spec in found.inputs:
        sizes = list(spec.axes)
        if spec.name in axes:
            sizes[axes[spec.name]] = Axis(LENGTH, 1, 64, (12,))
        specs.append(dataclasses.replace(spec, axes=tuple(sizes)))
    return dataclasses.replace(found, inputs=tuple(specs))


def agree(model: nn.Module, path: Path, batches: list[Inputs]) -> None:
    """The file computes what the model does."""
    session = OnnxRuntime().load(path)
    for inputs in batches:
        with torch.no_grad():
            expected = call(model, inputs)
        assert isinstance(expected, Tensor)
        got = session.run({name: t.numpy() for name, t in named(inputs).items()})["output"]
        np.testing.assert_allclose(got, expected.numpy(), atol=2e-5, rtol=1e-4)


def sampled(names: Iterable[str], *fast: str) -> list[object]:
    """Names as test parameters, all but some of them slow."""
    return [pytest.param(name, marks=[] if name in fast else pytest.mark.slow) for name in names]


EVENT_AXES = dict.fromkeys((*CATEGORIES, "numeric", "mask"), 1)
FREE: dict[str, tuple[Callable[[], nn.Module], Draw, Mapping[str, int]]] = {
    "TCN": (lambda: TCN(2, 3, filters=6, depth=3), series, {"input": 2}),
    "EventTransformer": (
        lambda: EventTransformer(CATEGORIES, 2, 3, static=3, width=16, layers=1),
        events,
        EVENT_AXES,
    ),
    "EventGRU": (lambda: EventGRU(CATEGORIES, 2, 3, static=3, width=16), events, EVENT_AXES),
}


@pytest.mark.parametrize("name", sampled(FREE, "EventTransformer"))
def test_one_file_is_right_at_many_lengths_and_batch_sizes(name: str, tmp_path: Path) -> None:
    make, draw, axes = FREE[name]
    model, example = make().eval(), draw(2, 12)
    free = free_lengths(example, axes)
    (path,) = OnnxRuntime().export(model, example, tmp_path / "m.onnx", free)
    agree(model, path, [draw(n, length) for n, length in ((1, 3), (2, 12), (7, 31), (3, 64))])


FIXED: dict[str, tuple[Callable[[], nn.Module], Draw]] = {
    "CifarResNet": (lambda: CifarResNet(8), lambda n, length: torch.randn(n, 3, 32, 32)),
    "InceptionTime": (lambda: InceptionTime(2, 3, filters=4), lambda n, length: series(n, 24)),
    "LSTMFCN": (lambda: LSTMFCN(2, 24, 3), lambda n, length: series(n, 24)),
    "PatchTransformer": (
        lambda: PatchTransformer(2, 40, 5, layers=1),
        lambda n, length: series(n, 40).cumsum(2),
    ),
    "PatchTransformer, quantiles": (
        lambda: PatchTransformer(2, 43, 5, layers=1, quantiles=(0.1, 0.9)),
        lambda n, length: series(n, 43).cumsum(2),
    ),
    "EventGRU": (FREE["EventGRU"][0], lambda n, length: events(n, 6)),
}


@pytest.mark.parametrize("name", sampled(FIXED, "PatchTransformer"))
def test_one_file_is_right_at_many_batch_sizes(name: str, tmp_path: Path) -> None:
    make, draw = FIXED[name]
    model = make().eval()
    (path,) = OnnxRuntime().export(model, draw(2, 0), tmp_path / "m.onnx")
    agree(model, path, [draw(n, 0) for n in (1, 2, 9)])


# -- training --------------------------------------------------------------------------------------


def rising(n: int) -> tuple[Tensor, Tensor]:
    """Noisy series, and whether their second half is the larger."""
    y = torch.randint(0, 2, (n,))
    step = torch.cat([torch.zeros(12), torch.ones(12)]) * (2 * y[:, None] - 1)
    return (0.5 * torch.randn(n, 24) + step).unsqueeze(1), y


def ending(n: int) -> tuple[Inputs, Tensor]:
    """Event sequences, and whether the last event is of a late type."""
    inputs = events(n, 6)
    assert isinstance(inputs, dict)
    last = inputs["type"].gather(1, inputs["mask"].sum(1, keepdim=True) - 1).squeeze(1)
    return inputs, (last > 5).long()


def waving(n: int) -> tuple[Tensor, Tensor]:
    """Sines on levels of their own, and how they go on."""
    t = torch.arange(40) + 20 * torch.rand(n, 1)
    x = (torch.sin(0.6 * t) + 10 * torch.randn(n, 1)).unsqueeze(1)
    return x[..., :32], x[..., 32:]


SMALL: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Inputs, Tensor]]]] = {
    "inception_time": (lambda: InceptionTime(1, 2, filters=4, depth=3), rising),
    "lstm_fcn": (lambda: LSTMFCN(1, 24, 2), rising),
    "tcn": (lambda: TCN(1, 2, filters=8, depth=3), rising),
    "patch_transformer": (
        lambda: PatchTransformer(1, 32, 8, layers=1, hidden=32, dropout=0.0),
        waving,
    ),
    "event_gru": (lambda: EventGRU(CATEGORIES, 2, 2, static=3, width=32), ending),
    "event_transformer": (
        lambda: EventTransformer(CATEGORIES, 2, 2, static=3, width=32, layers=1),
        ending,
    ),
}


@pytest.mark.parametrize("name", sampled(SMALL, "tcn"))
def test_a_network_learns_by_a_short_form_of_its_recipe(name: str) -> None:
    make, draw = SMALL[name]
    parts = [draw(256), draw(128), draw(16)]
    forecasts = name == "patch_transformer"
    task: Task = regression(*parts) if forecasts else classification(*parts)
    config = TrainConfig(
        12, 4e-3, optimizer="adamw", schedule="one_cycle", batch_size=32, weight_decay=1e-2
    )
    result = fit(make(), task, config, seed=0)
    if forecasts:
        assert result.score_after < 0.5 * result.score_before
    else:
        assert result.score_after > 0.75
