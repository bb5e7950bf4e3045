"""Rewrites that leave layers with constant weights: exact, at other batch sizes too, and
complete.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional
from torch.nn.utils import parametrizations

from petra.methods.quantize.ptq import trace
from petra.model.aten.batch_norms import batch_norm_as_arithmetic, fold_batch_norm_forward
from petra.model.aten.cells import cells_as_linear
from petra.model.aten.constants import fold_constants
from petra.model.aten.products import products_as_linear
from petra.model.aten.transposed import transposed_as_convolutions
from petra.testing.architectures.loops import CellLoop
from petra.testing.architectures.normed import StandardisedConv

Rewrite = Callable[[GraphModule], None]


class Function(nn.Module):
    """A function of the input and of one parameter."""

    def __init__(self, weight: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.function = nn.Parameter(weight), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


def rewritten(model: nn.Module, x: Tensor, *rewrites: Rewrite) -> list[str]:
    """Apply rewrites to the traced model, compare at three batch sizes; the operators that are
    left.
    """
    traced = trace(model.eval(), x)
    for rewrite in rewrites:
        rewrite(traced)
    with torch.no_grad():
        for inputs in (x, x[:1], torch.cat([x, x + 1, -x])):
            torch.testing.assert_close(traced(inputs), model(inputs), rtol=1e-4, atol=1e-5)
    return [str(node.target) for node in traced.graph.nodes if node.op == "call_function"]


def settled(norm: nn.Module) -> nn.Module:
    """A batch norm with statistics and gains that are not trivial."""
    for value in (norm.running_mean, norm.weight, norm.bias):
        nn.init.normal_(value)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


def layer_reads_constants(operators: list[str]) -> bool:
    return sum(o.startswith(("aten.conv", "aten.linear")) for o in operators) == len(operators)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: StandardisedConv(3, 4),
        lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
        lambda: Function(
            torch.randn(4, 3), lambda x, w: functional.conv2d(x, w.softmax(1)[..., None, None])
        ),
        lambda: Function(
            torch.randn(4, 3, 1, 1),
            lambda x, w: functional.conv2d(
                x, w @ torch.linalg.inv(torch.eye(1) * 2) + torch.ones(4, 3, 1, 1)
            ),
        ),
    ],
    ids=["standardised", "weight norm", "spectral norm", "softmax", "with new tensors"],
)
def test_what_depends_on_parameters_alone_is_computed_once(layer: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert layer_reads_constants(rewritten(layer(), torch.randn(2, 3, 6, 6), fold_constants))


def test_a_constant_that_would_outgrow_its_parameters_is_not_stored() -> None:
    model = Function(torch.randn(1, 8), lambda x, w: x + w.expand(512, 8).cumsum(0))
    assert "aten.cumsum.default" in rewritten(model, torch.randn(2, 512, 8), fold_constants)


def without_first(x: Tensor, weight: Tensor) -> Tensor:
    copied = weight.clone()
    copied[0] = 0.0
    return x @ (2 * copied)


def test_what_is_written_to_is_not_computed_beforehand() -> None:
    torch.manual_seed(0)
    rewritten(Function(torch.randn(8, 8), without_first), torch.randn(2, 8), fold_constants)


def test_random_numbers_are_no_constants() -> None:
    model = Function(torch.ones(8, 8), lambda x, w: x @ (w + 0 * torch.rand_like(w)))
    assert "aten.rand_like.default" in rewritten(model, torch.randn(2, 8), fold_constants)


@pytest.mark.parametrize(
    ("shape", "weight", "function"),
    [
        ((5, 3), (3, 4), lambda x, w: x @ w),
        ((5, 3), (7, 5), lambda x, w: w @ x),
        ((2, 5, 3), (7, 5), lambda x, w: torch.matmul(w, x)),
        ((5, 3), (3, 4), lambda x, w: torch.einsum("btd,de->bte", x, w)),
        ((5, 3), (4, 3), lambda x, w: torch.einsum("ed,btd->bet", w, x)),
        ((5, 3), (5, 6), lambda x, w: torch.einsum("btd,ts->bsd", x, w)),
        ((5, 3), (3, 2, 4), lambda x, w: torch.einsum("btd,dhk->bhtk", x, w)),
        ((5, 2, 4), (2, 4, 3), lambda x, w: torch.einsum("bthk,hkd->btd", x, w)),
        ((5, 3), (3, 4), lambda x, w: torch.einsum("...d,de", x, w)),
        ((5, 3), (3, 4), lambda x, w: torch.einsum("...d,de->...e", x, w)),
    ],
)
def test_products_with_a_constant_are_linear_layers(
    shape: tuple[int, ...], weight: tuple[int, ...], function: Callable[[Tensor, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    model = Function(torch.randn(weight), function)
    operators = rewritten(model, torch.randn(2, *shape), products_as_linear)
    assert operators.count("aten.linear.default") == 1
    assert not any(o.startswith(("aten.einsum", "aten.matmul", "aten.mm")) for o in operators)


@pytest.mark.parametrize("equation", ["btd,bsd->bts", "btd,td->bt", "btd,td->btd", "btd,e->btde"])
def test_other_products_stay_what_they_are(equation: str) -> None:
    sizes = {"b": 2, "t": 5, "d": 3, "s": 4, "e": 6}
    second = equation.split(",")[1].partition("-")[0]
    model = Function(
        torch.randn([sizes[c] for c in second]), lambda x, w: torch.einsum(equation, x, w)
    )
    x = torch.randn(2, 5, 3)
    if "b" in second:
        model = Function(torch.randn(()), lambda x, w: torch.einsum(equation, x, x * w))
    assert "aten.einsum.default" in rewritten(model, x, products_as_linear)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_are_linear_layers_and_gates(kind: type[nn.LSTMCell]) -> None:
    torch.manual_seed(0)
    operators = rewritten(CellLoop(kind, 8), torch.randn(2, 4, 8), cells_as_linear)
    assert not any("cell" in o for o in operators)
    assert operators.count("aten.linear.default") == 2 * 4 + 3


def test_cells_without_biases() -> None:
    torch.manual_seed(0)
    cell = nn.GRUCell(3, 4, bias=False)
    model = nn.Module()
    model.cell, model.forward = cell, lambda x: cell(x)
    assert "aten.linear.default" in rewritten(model, torch.randn(2, 3), cells_as_linear)


GEOMETRIES = [
    (k, s, p, extra)
    for k, s, p, extra in product((1, 2, 3, 4, 5), (1, 2, 3), (0, 1, 2), (0, 1))
    if extra < s and p < k and (k + s + p + extra) % 2  # half of them
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "extra"), GEOMETRIES)
def test_transposed_convolutions_are_convolutions(
    kernel: int, stride: int, padding: int, extra: int
) -> None:
    torch.manual_seed(0)
    model = nn.ConvTranspose1d(3, 4, kernel, stride, padding, extra)
    operators = rewritten(model, torch.randn(2, 3, 7), transposed_as_convolutions)
    assert not any("transpose" in o for o in operators)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.ConvTranspose2d(3, 4, (4, 3), (2, 1), (1, 0), bias=False), (3, 5, 6)),
        (nn.ConvTranspose3d(3, 2, 3, 2, 1, 1), (3, 3, 4, 2)),
    ],
)
def test_transposed_convolutions_of_more_dimensions(
    model: nn.Module, shape: tuple[int, ...]
) -> None:
    operators = rewritten(model, torch.randn(2, *shape), transposed_as_convolutions)
    assert not any("transpose" in o for o in operators)


@pytest.mark.parametrize("option", [{"groups": 2}, {"dilation": 2}])
def test_transposed_convolutions_of_other_kinds_are_left(option: dict[str, int]) -> None:
    model = nn.ConvTranspose1d(4, 4, 3, **option)
    assert "aten.conv_transpose1d.default" in rewritten(
        model, torch.randn(2, 4, 7), transposed_as_convolutions
    )


@pytest.mark.parametrize(
    ("behind", "shape"),
    [
        (lambda: [nn.BatchNorm1d(6), nn.Linear(6, 3)], (6,)),
        (lambda: [nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)], (6, 5, 5)),
        (lambda: [nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, groups=2, bias=False)], (6, 5, 5)),
        (lambda: [nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 25, 3)], (6, 5, 5)),
        (lambda: [nn.BatchNorm1d(6), nn.Conv1d(6, 4, 3, padding="valid")], (6, 5)),
    ],
)
def test_a_batch_norm_goes_into_the_layer_behind_it(
    behind: Callable[[], list[nn.Module]], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    norm, *others = behind()
    operators = rewritten(
        nn.Sequential(settled(norm), *others), torch.randn(2, *shape), fold_batch_norm_forward
    )
    assert not any("norm" in o for o in operators)


@pytest.mark.parametrize(
    ("behind", "shape"),
    [
        (lambda: [nn.Conv2d(6, 4, 3, padding=1)], (6, 5, 5)),  # zeros at the border are not shifted
        (lambda: [nn.ReLU(), nn.Conv2d(6, 4, 3)], (6, 5, 5)),
        (lambda: [nn.Linear(5, 3)], (6, 5, 5)),  # over another dimension
    ],
)
def test_a_batch_norm_that_no_layer_takes_is_left(
    behind: Callable[[], list[nn.Module]], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(settled(nn.BatchNorm2d(6)), *behind())
    operators = rewritten(model, torch.randn(2, *shape), fold_batch_norm_forward)
    assert "aten.batch_norm.default" in operators
    assert not any(
        "norm" in o for o in rewritten(model, torch.randn(2, *shape), batch_norm_as_arithmetic)
    )


@pytest.mark.parametrize("affine", [True, False])
def test_a_norm_of_the_batch_at_hand_is_arithmetic(affine: bool) -> None:
    norm = nn.BatchNorm2d(6, affine=affine, track_running_stats=False)
    operators = rewritten(norm, torch.randn(2, 6, 4, 4), batch_norm_as_arithmetic)
    assert not any("norm" in o for o in operators)


class Masked(nn.Module):
    """A weight that is computed, and a mask that is: only the first is there to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("mask", torch.tensor([0.0, 0.0, float("-inf")] * 2))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.weight / self.layer.weight.norm()
        return torch.softmax(x @ weight.T + self.mask.reshape(1, 6), -1)


def test_what_was_no_parameter_is_none_afterwards() -> None:
    graph = trace(Masked().eval(), torch.randn(2, 6))
    fold_constants(graph)
    assert all(p.isfinite().all() for p in graph.parameters())
    assert any((b == -torch.inf).any() for b in graph.buffers())
    assert any(name.endswith("_folded") for name, _ in graph.named_parameters())
