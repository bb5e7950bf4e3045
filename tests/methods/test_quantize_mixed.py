"""Bias correction, mixed precision, and products and norms folded into layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e
from unequal_layers import NOTHING, Unequal, images, sequences, simplified

from petra.core.errors import StageRefused
from petra.methods.quantize.annotate import DeploymentQuantizer
from petra.methods.quantize.calibration import observe, rounding
from petra.methods.quantize.corrections import bias_shift, correct_biases
from petra.methods.quantize.ptq import quantize_static, simplify, trace
from petra.methods.quantize.rounding_cost import sensitivities
from petra.methods.quantize.worse import relative_distance
from petra.model.aten import batch_norms
from petra.model.aten.graph import module_path


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


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
