"""What is done to a network around its quantization: equalisation, smoothing, bias correction,
mixed precision.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

from petra.core.errors import StageRefused
from petra.methods.quantize.annotate import DeploymentQuantizer
from petra.methods.quantize.calibration import observe, rounding
from petra.methods.quantize.corrections import bias_shift, correct_biases
from petra.methods.quantize.equalize import (
    equalizable_pairs,
    equalize_layers,
    equalizing_scale,
    input_ranges,
    output_ranges,
    scale_inputs,
)
from petra.methods.quantize.ptq import quantize_static, simplify, trace
from petra.methods.quantize.rounding_cost import relative_distance, sensitivities
from petra.methods.quantize.smooth import smooth_layers, smoothing_scale
from petra.model.aten import batch_norms
from petra.model.aten.graph import module_path
from petra.runtimes.onnx_export import export_onnx

NOTHING: frozenset[str] = frozenset()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def images(n: int) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))


class Unequal(nn.Module):
    """Grouped, depthwise and linear layers; the channels between them differ a thousandfold, for no
    reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 8, 1, groups=2)
        self.up, self.down, self.head = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 4)
        with torch.no_grad():
            c, d = torch.logspace(-2, 1, 16), torch.logspace(-2, 1, 32)
            self.bn.weight.copy_(c)
            self.depthwise.weight.div_(c.reshape(-1, 1, 1, 1))
            self.up.weight.mul_(d[:, None])
            self.up.bias.mul_(d)
            self.down.weight.div_(d)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.bn(self.stem(x))), 2)
        x = self.grouped(functional.leaky_relu(self.depthwise(x), 0.1)).mean((2, 3))
        return self.head(functional.gelu(self.down(functional.relu(self.up(x)))))


def simplified(model: nn.Module, x: Tensor) -> GraphModule:
    traced = trace(model, x)
    simplify(traced)
    return traced


# -- cross-layer equalisation ----------------------------------------------------------------------


def test_equalizing_scale_gives_both_sides_one_range() -> None:
    r1, r2 = torch.tensor([8.0, 0.5, 0.0, 1.0]), torch.tensor([2.0, 2.0, 3.0, 0.0])
    s = equalizing_scale(r1, r2)
    assert s.tolist() == [2.0, 0.5, 1.0, 1.0]  # channels that are dead on one side are left
    assert torch.allclose((r1 / s)[:2], (r2 * s)[:2])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_input_ranges_are_those_of_each_input_channel(groups: int) -> None:
    layer = nn.Conv2d(4, 8, 3, groups=groups, bias=False)
    expected = []
    for channel in range(4):  # what a channel's unit impulse can excite at most
        x = torch.zeros(1, 4, 5, 5)
        x[0, channel, 2, 2] = 1.0
        expected.append(float(layer(x).detach().abs().max()))
    assert input_ranges(layer.weight, groups).tolist() == pytest.approx(expected)
    s = torch.rand(4) + 0.5
    x = torch.randn(2, 4, 5, 5)
    scaled = functional.conv2d(
        x / s.reshape(1, 4, 1, 1), scale_inputs(layer.weight, s, groups), groups=groups
    )
    torch.testing.assert_close(scaled, layer(x))


def test_equalisation_is_exact_and_makes_ranges_alike() -> None:
    model, x = Unequal(), images(6)
    traced = simplified(model, x)
    pairs, skipped = equalize_layers(traced)
    assert [pair.paths for pair in pairs] == [
        ("stem", "depthwise"),
        ("depthwise", "grouped"),
        ("up", "down"),
    ]
    assert skipped["down"] == "aten.gelu.default does not scale with its input"
    assert skipped["head"] == "the model's output"
    assert "mean" in skipped["grouped"]
    with torch.no_grad():
        torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-5)
    for pair in pairs:
        first, second = (
            traced.get_parameter(layer.args[1].target) for layer in (pair.first, pair.second)
        )
        groups = {"depthwise": 16, "grouped": 2}.get(pair.paths[1], 1)
        torch.testing.assert_close(
            output_ranges(first), input_ranges(second, groups), rtol=0.02, atol=1e-4
        )


def test_shared_weights_and_second_readers_are_not_equalised() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = functional.relu(self.b(functional.relu(self.a(self.a(x)))))
            return self.c(y) + y

    pairs, skipped = equalizable_pairs(trace(Tied().eval(), torch.randn(4, 8)))
    assert pairs == []
    assert skipped["a"] == "shares its weight with another call"
    assert skipped["b"] == "several readers of its output"


def test_equalisation_rescues_unequal_channels() -> None:
    model, x = Unequal(), images(64)
    errors = {}
    for equalize in ("none", "cross_layer"):
        result = quantize_static(
            model, x, [x], observer="minmax", exclude=NOTHING, equalize=equalize
        )
        with torch.no_grad():
            errors[equalize] = relative_distance(result.model(x), model(x))
    assert errors["cross_layer"] < 0.5 * errors["none"]


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


def sequences(n: int) -> Tensor:
    return torch.randn(n, 5, 6, generator=torch.Generator().manual_seed(n))


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


# -- bias correction -------------------------------------------------------------------------------


def observed(model: nn.Module, x: Tensor, weight_max: int = 64) -> GraphModule:
    prepared = prepare_pt2e(simplified(model, x), DeploymentQuantizer(weight_max=weight_max))
    observe(prepared, [x])
    return prepared


def test_bias_shift_is_the_difference_of_means() -> None:
    y, z = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    expected = [float(y[:, c].mean() - z[:, c].mean()) for c in range(3)]
    assert bias_shift(y, z, 1).tolist() == pytest.approx(expected, abs=1e-6)
    assert bias_shift(y[0, 0], z[0, 0], -1).shape == (5,)


def layer_outputs(graph: GraphModule, path: str, x: Tensor) -> Tensor:
    """What the layer's own operator puts out, found by stopping a copy of the graph there."""
    stopped = copy.deepcopy(graph)
    (node,) = (
        n
        for n in stopped.graph.nodes
        if n.op == "call_function" and module_path(n) == path and len(n.args) > 2
    )
    for output in [n for n in stopped.graph.nodes if n.op == "output"]:
        output.args = ((node,),)
    stopped.recompile()
    with torch.no_grad():
        return stopped(x)


def test_corrected_layers_have_the_mean_outputs_of_the_float_network() -> None:
    model, x = Unequal(), images(32)
    prepared = observed(model, x, weight_max=3)
    with rounding(prepared) as roundings:
        before = {
            p: layer_outputs(prepared, p, x) for p in ("stem", "depthwise", "grouped", "head")
        }
        for every in roundings.values():
            every.on = False
        reference = {p: layer_outputs(prepared, p, x) for p in before}
    correction = correct_biases(prepared, x)
    assert set(correction.corrected) == {"stem", "depthwise", "grouped", "up", "down", "head"}
    with rounding(prepared):
        after = {p: layer_outputs(prepared, p, x) for p in before}
    for path, expected in reference.items():
        dims = [d for d in range(expected.ndim) if d != 1]
        shift = (before[path] - expected).mean(dims).abs().max()
        left = (after[path] - expected).mean(dims).abs().max()
        # Sequential: no error of an earlier layer is left over.
        assert left < 1e-4 * float(expected.abs().max())
        assert shift > 10 * left


def test_layers_without_a_bias_are_named() -> None:
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(16, 6)
    correction = correct_biases(observed(model, x), x)
    assert correction.corrected == ("2",)
    assert correction.skipped == {"0": "has no bias to correct"}


def test_bias_correction_helps_few_codes() -> None:
    model, x = Unequal(), images(64)
    errors = {}
    for correct in (False, True):
        result = quantize_static(
            model, x, [x], observer="minmax", exclude=NOTHING, weight_max=3, correct_bias=correct
        )
        with torch.no_grad():
            errors[correct] = relative_distance(result.model(x), model(x))
    assert errors[True] < errors[False]


# -- mixed precision -------------------------------------------------------------------------------


class Fragile(nn.Module):
    """The second of three layers has one output of a thousand times the others' range, which its
    rounding hits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.b.weight[:, 0] *= 300
            self.c.weight[:, :] *= 0.1
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.c(functional.gelu(self.b(torch.tanh(self.a(x)))))


def test_sensitivities_are_those_of_quantizing_one_layer() -> None:
    model, x = Fragile(), torch.randn(64, 8)
    found = sensitivities(observed(model, x), [x[:32], x[32:]])
    assert list(found) == sorted(found, key=found.__getitem__, reverse=True)
    for path in ("a", "b", "c"):
        others = frozenset({"a", "b", "c"} - {path})
        alone = quantize_static(model, x, [x], observer="minmax", exclude=others)
        assert alone.layers_quantized == (path,)
        with torch.no_grad():
            assert found[path] == pytest.approx(
                relative_distance(alone.model(x), model(x)), rel=0.1
            )


def test_the_most_sensitive_layers_stay_float() -> None:
    model, x = Fragile(), torch.randn(64, 8)
    result = quantize_static(model, x, [x], observer="minmax", exclude=NOTHING, keep_float=1)
    ranking = result.notes["sensitivity"]
    assert isinstance(ranking, dict)
    worst = next(iter(ranking))
    assert ranking[worst] == max(ranking.values())
    assert result.layers_skipped == {worst: "kept in float, number 1 in sensitivity"}
    assert set(result.layers_quantized) == {"a", "b", "c"} - {worst}
    assert result.shares.layers == pytest.approx(2 / 3)
    errors = []
    for path in ("a", "b", "c"):
        kept = quantize_static(model, x, [x], observer="minmax", exclude=frozenset({path}))
        with torch.no_grad():
            errors.append((relative_distance(kept.model(x), model(x)), path))
    assert min(errors)[1] == worst


def test_keeping_every_layer_is_refused() -> None:
    x = torch.randn(16, 8)
    with pytest.raises(StageRefused, match="nothing can be quantized"):
        quantize_static(Fragile(), x, [x], observer="minmax", exclude=NOTHING, keep_float=3)


# -- folding ---------------------------------------------------------------------------------------


class Conv1D(nn.Module):
    """A linear layer as GPT-2 writes it."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(n_in, n_out)),
            nn.Parameter(torch.randn(n_out)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class Matrices(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.matrix = Conv1D(6, 12), nn.Parameter(torch.randn(12, 8))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))
        self.deconv, self.bn = nn.ConvTranspose1d(4, 5, 3), nn.BatchNorm1d(5)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.normed(torch.tanh(torch.tanh(self.a(x)) @ self.matrix))
        return self.bn(self.deconv(h.transpose(1, 2)))


def test_products_with_constants_become_layers() -> None:
    model, x = Matrices(), sequences(4)
    traced = trace(model, x)
    simplify(traced)
    targets = [str(n.target) for n in traced.graph.nodes if n.op == "call_function"]
    assert targets.count("aten.linear.default") == 3
    assert not any("addmm" in t or "matmul" in t or "norm" in t for t in targets)
    with torch.no_grad():
        torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-5)
    result = quantize_static(model, x, [x], observer="minmax", exclude=NOTHING)
    assert "deconv" in result.layers_quantized
    assert len(result.layers_quantized) == 4
    assert not result.layers_skipped


def test_a_batch_norm_is_folded_only_where_nothing_else_reads() -> None:
    class TwoReaders(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.bn(y) + y

    traced = trace(TwoReaders().eval(), images(4))
    batch_norms.fold_batch_norm(traced)
    assert any("batch_norm" in str(n.target) for n in traced.graph.nodes)
