"""Targets of any magnitude: the way back to their unit ships inside the file, survives every stage
and is exact.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import petra
from petra.core.errors import ConfigError, DataError
from petra.core.pipeline import Pipeline
from petra.core.rng import derive_seed
from petra.execute.apply import apply_pipeline
from petra.execute.cache import PrefixCache
from petra.intake import examine
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.layers.half import half_dtype
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.torch_eager import TorchEager
from petra.tasks.inputs import call
from petra.tasks.regression import Regression
from petra.testing.coverage import shortest_pipeline
from petra.testing.stage_suite import ResidualNet
from petra.training.loop import TrainConfig, fit

OFFSET, SCALE = (1003.0, -20.3, 0.5), (4.0, 0.01, 30.0)


class Outputs(nn.Module):
    """The small residual network with attention in it, and three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ResidualNet()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)[:, None]
        return self.head((x + self.attention(x, x, x, need_weights=False)[0])[:, 0])


@pytest.fixture(scope="module")
def problem() -> tuple[petra.Rescaled, Regression]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(160, 3, 8, 8, generator=g)
    torch.manual_seed(0)
    inner = Outputs()
    with torch.no_grad():
        for _ in range(10):
            inner(x)  # statistics
        inner.eval()
        whole = petra.Rescaled(inner, offset=OFFSET, scale=SCALE).eval()
        noise = torch.randn(160, 3, generator=g) * torch.tensor(SCALE) * 0.1
        y = whole(x) + noise
    return whole, petra.regression((x[:96], y[:96]), (x[96:128], y[96:128]), (x[128:], y[128:]))


def exact(network: nn.Module, x: Tensor) -> np.ndarray:
    """The formula, in float64, of what the network puts out."""
    with torch.no_grad():
        y = network(x).double().numpy()
    return y * np.float32(SCALE).astype(float) + np.float32(OFFSET).astype(float)


def test_it_is_exact_to_one_rounding_in_pytorch_and_in_the_file(
    problem: tuple[petra.Rescaled, Regression], tmp_path: Path
) -> None:
    whole, task = problem
    x, _ = next(iter(task.val.batches(32)))
    wanted = exact(whole.model, x)
    with torch.no_grad():
        own = whole(x).numpy()
    # Of a sum, half a unit in the last place of each of product and sum.
    ulp = np.spacing(np.abs(wanted - np.float32(OFFSET)).astype(np.float32)) + np.spacing(
        np.abs(wanted).astype(np.float32)
    )
    assert (np.abs(own - wanted) <= ulp).all()
    inner, outer = (
        _onnx(model, x, tmp_path / f"{i}.onnx") for i, model in enumerate((whole.model, whole))
    )
    from_file = inner.astype(float) * np.float32(SCALE) + np.float32(OFFSET)
    spread = np.spacing(np.abs(from_file).astype(np.float32))
    # The network's own outputs may be rounded otherwise where the exporter folds the product.
    fold = 4 * np.spacing(np.float32(np.abs(inner).max())) * np.float32(SCALE)
    assert (np.abs(outer - from_file) <= 2 * spread + fold).all()


def _onnx(model: nn.Module, x: Tensor, path: Path) -> np.ndarray:
    runtime = OnnxRuntime()
    runtime.export(model, x[:2], path)
    return next(iter(runtime.load(path).run({"input": x.numpy()}).values()))


# One of each family; all others are slow.
FEW = ("prune.structured", "quantize.half")
KINDS = [pytest.param(k, marks=() if k in FEW else pytest.mark.slow) for k in STAGES.names()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_leaves_it_alone(
    problem: tuple[petra.Rescaled, Regression], kind: str, tmp_path: Path
) -> None:
    """Three outputs of which one is a thousand, one moves by hundredths: what a stage changes are
    the network's outputs, of order one. Lost, the way back would be missed by hundreds of those.
    """
    whole, task = problem
    x, y = next(iter(task.val.batches(32)))
    pipeline = shortest_pipeline(kind)

    def context(prefix: Pipeline) -> Context:
        return Context(task=task, teacher=whole, seed=derive_seed(0, prefix.key))

    cache = PrefixCache(tmp_path / "cache", 2**28)
    done: list[nn.Module] = []
    for _ in range(2):  # as made, and as kept
        model, _ = apply_pipeline(
            whole, pipeline, context, cache=cache, on_stage=lambda index, spec: None
        )
        done.append(model)
    for model in done:
        kept = {name.rpartition(".")[2]: t for name, t in model.named_buffers()}
        if isinstance(model, petra.Rescaled):
            assert torch.equal(kept["offset"], whole.offset)
            assert torch.equal(kept["scale"], whole.scale)
        with torch.no_grad():
            off = (call(model, x) - y).square().mean(0).sqrt() / torch.tensor(SCALE)
        assert (off < 3).all(), f"{kind}: {off.tolist()} of the network's outputs"
    runtime = OnnxRuntime() if half_dtype(model) is None else TorchEager()
    path = tmp_path / f"model{runtime.suffix}"
    runtime.export(model, x[:2], path)
    found = next(iter(runtime.load(path).run({"input": x.numpy()}).values()))
    with torch.no_grad():
        reference = call(model, x)
    apart = (torch.from_numpy(found) - reference).square().mean(0).sqrt() / torch.tensor(SCALE)
    assert (apart < 0.05).all(), f"{kind}: {apart.tolist()}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_its_precision_is_the_targets(dtype: torch.dtype) -> None:
    whole = petra.Rescaled(nn.Linear(3, 1), offset=1000.1, scale=0.3).to(dtype)
    assert whole.model.weight.dtype == dtype
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    assert whole.offset.dtype == whole.scale.dtype == kept
    assert float(whole.offset) == np.float32(1000.1)
    with torch.no_grad():
        found = whole(torch.zeros(4, 3, dtype=dtype))
    assert found.dtype == kept
    bias = float(whole.model.bias.detach().float())
    assert float(found[0]) == pytest.approx(bias * 0.3 + 1000.1, rel=2e-7)


class Named(nn.Module):
    """Called by name; a mapping of outputs, of which the one called logits is judged."""

    def forward(self, *, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"hidden": a + b, "logits": a - b}


class Several(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, None, Tensor]:
        return a - b, None, a + b


def test_it_is_called_as_the_model_and_scales_what_is_judged() -> None:
    a, b = torch.rand(5, 2), torch.rand(5, 2)
    by_name = petra.Rescaled(Named(), offset=7.0, scale=2.0)(a=a, b=b)
    assert torch.equal(by_name["logits"], (a - b) * 2 + 7)
    assert torch.equal(by_name["hidden"], a + b)
    first, nothing, other = petra.Rescaled(Several(), offset=[1.0, 2.0])(a, b)
    assert torch.equal(first, a - b + torch.tensor([1.0, 2.0]))
    assert nothing is None
    assert torch.equal(other, a + b)


def test_fit_has_mean_and_spread() -> None:
    y = np.random.default_rng(0).normal(50, 3, (200, 2))
    for level in (4.0, 0.1):  # a mean of tenths is none
        y[:, 1] = level
        whole = petra.Rescaled.fit(nn.Linear(3, 2), y)
        assert whole.offset.tolist() == pytest.approx(y.mean(0).tolist(), rel=1e-6)
        assert whole.scale.tolist() == pytest.approx([y[:, 0].std(), 1.0], rel=1e-6)
    one = petra.Rescaled.fit(nn.Flatten(0), y[:, 0])
    assert one(torch.zeros(6, 1)).shape == (6,)
    with pytest.raises(DataError, match=r"targets: got shape \(4, 2, 2\)"):
        petra.Rescaled.fit(nn.Linear(3, 2), np.zeros((4, 2, 2)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scale": 0.0}, "scale: got 0"),
        ({"scale": [1.0, 0.0]}, "scale: got 0"),
        ({"offset": float("nan")}, "offset: got nan"),
        ({"offset": "high"}, "offset: got 'high'"),
        ({"scale": []}, "scale: got"),
    ],
)
def test_what_is_no_scaling_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        petra.Rescaled(nn.Linear(2, 2), **given)  # type: ignore[arg-type]


def test_losses_are_in_the_targets_spread_so_that_training_is_the_same_in_any_unit() -> None:
    """Watts and megawatts: same learning rate, same weights, predictions in their unit."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(128, 4, generator=g)
    y = x @ torch.randn(4, 1, generator=g) + 0.1 * torch.randn(128, 1, generator=g)
    weights, predictions = [], []
    for unit in (1.0, 1024.0, 2.0**-20):
        task = petra.regression(*[(x, y * unit)] * 3)
        torch.manual_seed(0)
        model = petra.Rescaled(nn.Linear(4, 1), scale=unit)
        fit(model, task, TrainConfig(epochs=3, lr=0.05, batch_size=32), seed=0)
        weights.append(model.model.weight.detach())
        with torch.no_grad():
            predictions.append(model(x) / unit)
    for other, theirs in zip(weights[1:], predictions[1:], strict=True):
        torch.testing.assert_close(other, weights[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(theirs, predictions[0], rtol=1e-4, atol=1e-5)
    before = float((y - y.mean()).square().mean())
    assert float((predictions[0] - y).square().mean()) < 0.5 * before


def test_intake_takes_it(problem: tuple[petra.Rescaled, Regression]) -> None:
    whole, task = problem
    found = examine(whole, task)
    assert isinstance(found.model, petra.Rescaled)
    assert found.interface.outputs[0].shape == (None, 3)
