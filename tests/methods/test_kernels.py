"""Quantized graphs follow the kernels of the runtime they are for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from petra.core.errors import ConfigError
from petra.core.kernels import USUAL, Kernels
from petra.core.target import Target
from petra.methods.base import Context, Stage
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.methods.quantize.half import HalfPrecision
from petra.methods.quantize.ptq import quantize_static
from petra.methods.quantize.static import StaticQuantize
from petra.methods.quantize.stored import store_weights
from petra.methods.quantize.weights import WeightQuantize
from petra.model.outline import outline_of
from petra.runtimes.table import RUNTIMES, runtime_for
from petra.space.domains import Choice
from petra.space.narrow import fix_for_runtime, lacks_kernels
from petra.tasks.classification import classification

X = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SIGNED = Kernels(
    activations=(-128, 127),
    largest_weight=127,
    weight_bits=(8,),
    arithmetic=frozenset({"add"}),
    same_range=frozenset({"avg_pool2d"}),
    clips=frozenset({(0.0, None)}),
    float_results=False,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = nn.functional.hardtanh(self.second(x), -0.5, 0.5)
        logits: Tensor = self.head(nn.functional.avg_pool2d(x, 2).flatten(1))
        return logits


def quantized(kernels: Kernels) -> GraphModule:
    torch.manual_seed(0)
    model = Net().eval()
    return quantize_static(
        model, X[:2], [X], observer="minmax", exclude=frozenset(), kernels=kernels
    ).model


def activations(graph: GraphModule) -> Iterator[Node]:
    target = torch.ops.quantized_decomposed.quantize_per_tensor.default
    return (node for node in graph.graph.nodes if node.target is target)


def reader_of_codes(graph: GraphModule, name: str) -> bool:
    """Whether what the operator makes is quantized at once."""
    (node,) = [n for n in graph.graph.nodes if str(n.target).startswith(f"aten.{name}.")]
    return all("quantize_per_tensor" in str(user.target) for user in node.users)


def of_result(graph: GraphModule, name: str) -> tuple[object, ...]:
    """Scale and zero point of what the operator makes."""
    (node,) = [n for n in graph.graph.nodes if str(n.target).startswith(f"aten.{name}.")]
    (codes,) = node.users
    return codes.args[1:3]


def of_input(graph: GraphModule, name: str) -> tuple[object, ...]:
    (node,) = [n for n in graph.graph.nodes if str(n.target).startswith(f"aten.{name}.")]
    return node.all_input_nodes[0].args[1:3]


@pytest.mark.parametrize(
    ("kernels", "dtype", "low", "high"),
    [(USUAL, torch.uint8, 0, 255), (SIGNED, torch.int8, -128, 127)],
)
def test_activations_have_the_type_and_range_of_the_kernels(
    kernels: Kernels, dtype: torch.dtype, low: int, high: int
) -> None:
    found = [node.args[3:6] for node in activations(quantized(kernels))]
    assert set(found) == {(low, high, dtype)}


def test_both_schemes_mean_the_same_values() -> None:
    """What differs is how codes are written, and how fine weights are."""
    with torch.no_grad():
        expected = quantized(Kernels(largest_weight=127))(X)
        got = quantized(Kernels(activations=(-128, 127), largest_weight=127))(X)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("kernels", [USUAL, SIGNED])
def test_weights_use_the_codes_that_the_kernels_multiply_rightly(kernels: Kernels) -> None:
    graph = quantized(kernels)
    codes = [t for t in (*graph.buffers(), *graph.parameters()) if t.dtype == torch.int8]
    assert max(int(t.abs().max()) for t in codes) == kernels.largest_weight


def test_what_a_layer_s_kernel_cannot_clip_is_clipped_after_it() -> None:
    usual, signed = quantized(USUAL), quantized(SIGNED)
    assert reader_of_codes(usual, "hardtanh")
    assert not any("hardtanh" in str(u.target) for u in _layer(signed, 1).users)
    assert any("hardtanh" in str(u.target) for u in _layer(usual, 1).users)
    assert any("relu" in str(u.target) for u in _layer(signed, 0).users)


def _layer(graph: GraphModule, number: int) -> Node:
    convolutions = [n for n in graph.graph.nodes if str(n.target).startswith("aten.conv2d")]
    return convolutions[number]


def test_averages_keep_their_input_s_range_where_the_kernels_want_it() -> None:
    usual, signed = quantized(USUAL), quantized(SIGNED)
    assert of_result(usual, "avg_pool2d") != of_input(usual, "avg_pool2d")
    assert of_result(signed, "avg_pool2d") == of_input(signed, "avg_pool2d")


def test_results_stay_float_only_where_the_kernels_can_put_that_out() -> None:
    assert not reader_of_codes(quantized(USUAL), "linear")
    assert reader_of_codes(quantized(SIGNED), "linear")


def test_dynamic_layers_use_the_same_largest_code() -> None:
    for kernels in (USUAL, SIGNED):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32))
        formats = dict.fromkeys(
            ("linear", "convolution", "embedding", "recurrent", "attention", "other"), "dynamic"
        )
        result = store_weights(
            model, torch.randn(2, 64), formats, exclude=frozenset(), kernels=kernels
        )
        assert int(result.model[0].codes.abs().max()) == kernels.largest_weight


def test_a_stage_finds_the_kernels_in_its_context() -> None:
    data = (X, torch.arange(16) % 5)
    task, model = classification(data, data, data), Net().eval()
    for name in RUNTIMES.names():
        context = Context(task=task, teacher=model, seed=0, target=Target(name))
        assert context.kernels == runtime_for(Target(name)).kernels


def test_the_space_has_what_the_kernels_can_run() -> None:
    weights = fix_for_runtime(WeightQuantize.card(), "some", SIGNED).parameter("bits")
    codes = fix_for_runtime(StaticQuantize.card(), "some", SIGNED).parameter("weight_max")
    assert weights is not None
    assert weights.domain == weights.limits == Choice((8,))
    assert codes is not None
    assert (codes.default, codes.domain) == (127, Choice((127,)))
    assert codes.limits.contains(64)
    able = Kernels(recurrent=frozenset({"LSTM"}))
    for card in (WeightQuantize.card(), StaticQuantize.card()):
        assert fix_for_runtime(card, "some", able) == card
    without = fix_for_runtime(StaticQuantize.card(), "some", USUAL).parameter("recurrent")
    assert without is not None
    assert without.limits == Choice(("float", "int8"))
    assert "computes in none" in lacks_kernels(HalfPrecision.card(), "some", SIGNED)
    with pytest.raises(ConfigError, match="some computes in none"):
        fix_for_runtime(HalfPrecision.card(), "some", SIGNED)


@pytest.mark.parametrize(("stage", "usual"), [(DynamicQuantize, "int8"), (StaticQuantize, "float")])
def test_models_without_recurrent_layers_never_hear_of_it(stage: type[Stage], usual: str) -> None:
    """Nothing is drawn or written; pipelines that say it anyway, for any model, are read."""
    outline = outline_of(nn.Sequential(nn.Linear(3, 3)))
    card = fix_for_runtime(
        stage.card(outline), "onnxruntime", runtime_for(Target("onnxruntime")).kernels
    )
    assert card.parameter("recurrent").domain.values == (usual,)
    assert "recurrent" not in card.normalize({}).params
    assert card.normalize({"recurrent": usual}) == card.normalize({})
    assert card.normalize({"recurrent": "dynamic"}).params["recurrent"] == "dynamic"
