"""Normalisation: NumPy's moments, missing values, and the same numbers in the exported file."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import petra
from petra import data
from petra.core.errors import DataError
from petra.core.target import Target
from petra.model.layers.half import DTYPES, half_dtype, halve, widened
from petra.runtimes.table import runtime_for
from petra.tasks.inputs import call


def values(*shape: int, gaps: bool = True) -> np.ndarray:
    random = np.random.default_rng(0)
    x = (random.normal(size=shape) * 30 + 100).astype(np.float32)
    if gaps:
        x[random.random(shape) < 0.1] = np.nan
    return x


@pytest.mark.parametrize(("shape", "axis"), [((50, 3, 7), 1), ((50, 7, 3), -1), ((50, 3), 1)])
def test_moments_are_those_of_numpy(shape: tuple[int, ...], axis: int) -> None:
    x = values(*shape)
    over = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    mean = np.nanmean(x.astype(np.float64), axis=over, keepdims=True)
    deviation = np.nanstd(x.astype(np.float64), axis=over, keepdims=True)
    z = data.Normalise.fit(x, axis=axis)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(z, np.nan_to_num((x - mean) / deviation), atol=1e-5)


def test_pixels_become_numbers() -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    z = data.Normalise.fit(x)(torch.from_numpy(x))
    assert z.dtype == torch.float32
    assert float(z.mean()) == pytest.approx(0, abs=1e-5)
    assert float(z.std()) == pytest.approx(1, abs=0.01)


def test_large_inputs_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = values(50, 3, 7)
    whole = data.Normalise.fit(x)
    monkeypatch.setattr("petra.data.normalise._CHUNK", 21 * 4)
    parts = data.Normalise.fit(x)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(parts.scale, whole.scale, rtol=1e-6)


def test_constant_and_tiny_channels_are_only_shifted() -> None:
    x = np.zeros((999, 3), dtype=np.float32)
    x[:, 0] = 0.1  # whose mean in float64 is not exactly it
    x[:, 1] = 1e-40 * np.arange(999)
    x[:, 2] = 3e38
    normalise = data.Normalise.fit(x)
    assert normalise.scale.flatten().tolist() == [1, 1, 1]
    assert normalise(torch.from_numpy(x)).abs().max() < 1e-6


def test_great_numbers_do_not_overflow() -> None:
    x = (np.float32(1e37) * np.random.default_rng(0).normal(size=(100, 1))).astype(np.float32)
    z = data.Normalise.fit(x)(torch.from_numpy(x))
    assert float(z.std(correction=0)) == pytest.approx(1, abs=1e-3)


def test_what_cannot_be_learnt_is_refused() -> None:
    x = values(9, 2, 4)
    x[:, 1] = np.nan
    with pytest.raises(DataError, match="channel 1 has no value"):
        data.Normalise.fit(x)
    x[:, 1] = np.inf
    with pytest.raises(DataError, match="channel 1 has infinity"):
        data.Normalise.fit(x)
    for shape, axis in (((9, 2), 0), ((9, 2), 2), ((9,), 1), ((9, 2), -2)):
        with pytest.raises(DataError, match="have no axis"):
            data.Normalise.fit(values(*shape, gaps=False), axis=axis)
    for inputs in ((x, x), {"a": x}):
        with pytest.raises(DataError, match="several inputs"):
            data.Normalise.fit(inputs)
    with pytest.raises(DataError, match="the training split is a list"):
        data.normalised(nn.Identity(), [x])


class Events(nn.Module):
    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.last = last

    def forward(self, values: Tensor, kind: Tensor, fact: Tensor, mask: Tensor) -> Tensor:
        steps = values if self.last else values.transpose(1, 2)
        return torch.cat([steps.flatten(1), kind.to(steps.dtype), fact], 1)


@pytest.mark.parametrize("mask_type", ["bool", "int64", "float32"])
@pytest.mark.parametrize("last", [True, False])
def test_ragged_inputs_keep_their_padding(last: bool, mask_type: str) -> None:
    random = np.random.default_rng(0)
    steps = [values(length, 2) for length in (3, 5, 4, 9)]
    inputs = {
        "values": steps if last else [x.T for x in steps],
        "kind": [random.integers(1, 4, len(x)) for x in steps],
        "fact": values(4, 3, gaps=False),
    }
    padding = petra.Padding(axis=0 if last else -1, mask="mask", mask_type=mask_type)
    train = petra.ragged(inputs, np.arange(4), padding=padding)
    model = data.normalised(Events(last=last), train, axis=-1 if last else 1)
    flat = np.concatenate(steps).astype(np.float64)
    mean, deviation = np.nanmean(flat, axis=0), np.nanstd(flat, axis=0)
    batch, _ = train.take(torch.tensor([0, 1]))
    assert isinstance(batch, dict)
    got = model(**batch)[:, :10].reshape(2, 5, 2).numpy()
    wanted = np.zeros((2, 5, 2))
    wanted[0, :3] = np.nan_to_num((steps[0] - mean) / deviation)
    wanted[1, :5] = np.nan_to_num((steps[1] - mean) / deviation)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_ragged_tensor_gets_a_sequential() -> None:
    steps = [values(2, length) for length in (3, 5, 4)]
    train = petra.ragged(steps, np.arange(3), padding=petra.Padding(axis=-1))
    model = data.normalised(nn.Identity(), train)
    assert isinstance(model, nn.Sequential)
    flat = np.concatenate([x.T for x in steps])
    assert isinstance(model[0], data.Normalise)
    np.testing.assert_allclose(model[0].mean.flatten(), np.nanmean(flat, axis=0), rtol=1e-5)


@pytest.mark.parametrize(("place", "axis"), [(0, 1), (0, -2), (-1, -1), (-1, 2)])
def test_steps_are_no_channels(place: int, axis: int) -> None:
    steps = [values(2, length) if place else values(length, 2) for length in (3, 5, 4)]
    padding = petra.Padding(axis=place, mask="mask")
    for train in (
        petra.ragged({"x": steps}, np.arange(3), padding=padding),
        petra.ragged(steps, np.arange(3), padding=petra.Padding(axis=place)),
    ):
        with pytest.raises(DataError, match="is that of its length") as caught:
            data.normalised(nn.Identity(), train, axis=axis)
        assert "axis=-1 of items (length, channels)" in caught.value.hint


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


@pytest.mark.parametrize(
    ("runtime", "pixels"),
    [("onnxruntime", False), ("onnxruntime", True), ("openvino", False), ("torch", True)],
)
def test_the_file_normalises_and_fills_gaps(tmp_path: Path, runtime: str, pixels: bool) -> None:
    made = runtime_for(Target(runtime))
    if missing := made.lacks():
        pytest.skip(f"{runtime}: {missing}")
    x = values(64, 3, 10)
    if pixels:
        x = np.random.default_rng(0).integers(0, 256, (64, 3, 10), dtype=np.uint8)
    torch.manual_seed(0)
    model = data.normalised(Small(), (x, np.zeros(64))).eval()
    given = torch.from_numpy(x)
    with torch.no_grad():
        wanted = model(given).numpy()
    assert np.isfinite(wanted).all()
    path = tmp_path / f"model{made.suffix}"
    made.export(model, given[:2], path)
    session = made.load(path)
    (got,) = session.run({"input": x}).values()
    np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=1e-4)


def test_gaps_are_taken_in_only_behind_a_normalisation() -> None:
    from petra.intake import examine

    x, y = values(60, 3, 10), np.arange(60) % 2
    train, val, test = data.split(x, y, stratify=y)
    task = petra.classification(train, val, test)
    torch.manual_seed(0)
    with pytest.raises(DataError, match="NaN in the inputs"):
        examine(Small().eval(), task)
    examine(data.normalised(Small(), train).eval(), task)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("by_name", [False, True])
def test_half_precision_begins_behind_the_normalisation(dtype: str, by_name: bool) -> None:
    """Of seconds since 1970 bf16 has steps of 33 million, and fp16 nothing at all."""
    torch.manual_seed(0)
    when = 1.7e9 + 1e5 * torch.randn(64, 4)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, when: torch.Tensor) -> torch.Tensor:
            return self.layer(when)

    x = {"when": when} if by_name else when
    model = petra.data.normalised(Named() if by_name else nn.Linear(4, 3), (x, torch.zeros(64)))
    halved = halve(copy.deepcopy(model), DTYPES[dtype])
    wide = widened(halved)
    with torch.no_grad():
        expected = call(model, x)
        for found, error in ((call(halved, x), 0.02), (call(wide, x), 0.005)):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected, atol=error, rtol=error)
    assert half_dtype(halved) is DTYPES[dtype]
    assert half_dtype(wide) is None
