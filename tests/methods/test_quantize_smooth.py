"""Smoothing: difficulty moved from activations into weights, exactly, and where it helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from unequal_layers import NOTHING, Unequal, images, sequences, simplified

from petra.core.errors import StageRefused
from petra.methods.quantize.ptq import quantize_static
from petra.methods.quantize.smooth import smooth_layers, smoothing_scale
from petra.methods.quantize.worse import relative_distance
from petra.runtimes.onnx_export import export_onnx


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- smoothing -------------------------------------------------------------------------------------


class Transformer(nn.Module):
    """One pre-norm and one post-norm half block, with a gate, and activations of which one channel
    is huge.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.post = nn.LayerNorm(16)
        self.rms = nn.RMSNorm(16)
        self.gate, self.up, self.down = (
            nn.Linear(a, b, bias=False) for a, b in ((16, 24), (16, 24), (24, 16))
        )
        self.head = nn.Linear(16, 3)
        with torch.no_grad():
            self.norm.weight[3], self.post.weight[5] = 60.0, 60.0
            self.qkv.weight[:, 3] /= 60
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4)
        x = self.post(
            x
            + self.out(
                functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 16)
            )
        )
        h = self.rms(x)
        x = x + self.down(functional.silu(self.gate(h)) * self.up(h))
        return self.head(functional.tanh(x).mean(1))


def test_smoothing_scale_is_the_papers() -> None:
    s = smoothing_scale(torch.tensor([16.0, 4.0, 0.0]), torch.tensor([4.0, 1.0, 2.0]), 0.5)
    assert s.tolist() == [2.0, 2.0, 1.0]
    assert smoothing_scale(torch.tensor([16.0]), torch.tensor([4.0]), 1.0).tolist() == [16.0]
    assert smoothing_scale(torch.tensor([16.0]), torch.tensor([4.0]), 0.0).tolist() == [0.25]


def test_smoothing_is_exact_and_says_where_scales_went() -> None:
    model, x = Transformer(), sequences(8)
    traced = simplified(model, x)
    result = smooth_layers(traced, [x], 0.5)
    assert sorted(result.folded) == ["down", "gate", "qkv", "up"]
    assert sorted(result.multiplied) == ["embed", "out"]
    assert list(result.skipped) == ["head"]
    with torch.no_grad():
        torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-5)
    assert not torch.equal(traced.get_parameter("norm.weight"), model.norm.weight)
    assert traced.get_parameter("norm.weight")[3] < 10  # was 60


def test_smoothing_does_not_fold_into_a_norm_that_something_else_reads() -> None:
    class PostNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.LayerNorm(6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(x)
            return functional.gelu(h + self.layer(h))

    model, x = PostNorm().eval(), sequences(8)
    traced = simplified(model, x)
    result = smooth_layers(traced, [x], 0.5)
    assert result.multiplied == ["layer"]
    assert torch.equal(traced.get_parameter("norm.weight"), model.norm.weight)
    with torch.no_grad():
        torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-5)


def test_smoothing_leaves_integer_chains_alone() -> None:
    model, x = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval(),
        images(8),
    )
    result = smooth_layers(simplified(model, x), [x], 0.5)
    assert list(result.skipped) == ["3"]
    assert result.folded == result.multiplied == []


def test_smoothing_rescues_outlier_channels(tmp_path: Path) -> None:
    model, x = Transformer(), sequences(64)
    errors = {}
    for equalize in ("none", "smooth"):
        result = quantize_static(
            model, x, [x], observer="minmax", exclude=NOTHING, equalize=equalize
        )
        assert set(result.layers_quantized) == {"embed", "qkv", "out", "gate", "up", "down", "head"}
        with torch.no_grad():
            expected = result.model(x)
            errors[equalize] = relative_distance(expected, model(x))
        path = export_onnx(result.model, x, tmp_path / f"{equalize}.onnx")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs = session.run(None, {"input": x.numpy()})[0]
        assert np.abs(outputs - expected.numpy()).max() < 0.02 * float(
            expected.max() - expected.min()
        )
    assert errors["smooth"] < 0.3 * errors["none"]


@pytest.mark.parametrize(
    ("equalize", "phrase", "why"),
    [
        (
            "cross_layer",
            "no two layers can be equalised",
            "0: aten.hardtanh.default does not scale",
        ),
        (
            "smooth",
            "no layer's inputs can be smoothed",
            "3: nothing before it can absorb the scale",
        ),
    ],
)
def test_scales_that_move_nowhere_are_refused(equalize: str, phrase: str, why: str) -> None:
    """It would be the model that no equalisation gives, under another name."""
    model, x = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(288, 4)).eval(),
        images(8),
    )
    with pytest.raises(StageRefused, match=phrase) as refusal:
        quantize_static(model, x, [x], observer="minmax", exclude=NOTHING, equalize=equalize)
    assert why in str(refusal.value.hint)


def test_the_notes_say_what_was_not_equalised() -> None:
    model, x = Unequal(), images(8)
    notes = quantize_static(
        model, x, [x], observer="minmax", exclude=NOTHING, equalize="cross_layer"
    ).notes
    assert notes["equalized_pairs"] == [
        ["stem", "depthwise"],
        ["depthwise", "grouped"],
        ["up", "down"],
    ]
    left = notes["not_equalized"]
    assert isinstance(left, dict)
    assert set(left) == {"grouped", "down", "head"}
    assert left["down"] == "aten.gelu.default does not scale with its input"
