"""Penalties against formulas written out in loops, and that training on one does to the weights
what it says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from petra.training import penalties
from petra.training.penalties import (
    OVER_CHANNELS,
    PENALTIES,
    filters,
    make_channel_penalty,
    make_penalty,
    penalised_layers,
)

G = torch.Generator().manual_seed(0)
WIDE, TALL = torch.randn(3, 5, generator=G), torch.randn(6, 2, generator=G)


def rows(W: Tensor) -> list[list[float]]:
    return [[float(v) for v in row] for row in W]


def length(row: list[float]) -> float:
    return math.sqrt(sum(v * v for v in row))


def soft_orthogonality(W: list[list[float]]) -> float:
    """||W W^T - I||_F^2 / C, entry by entry."""
    total = 0.0
    for i, a in enumerate(W):
        for j, b in enumerate(W):
            total += (sum(x * y for x, y in zip(a, b, strict=True)) - (1.0 if i == j else 0.0)) ** 2
    return total / len(W)


def test_orthogonality_by_loops() -> None:
    assert float(penalties.orthogonality(WIDE)) == pytest.approx(
        soft_orthogonality(rows(WIDE)), rel=1e-5
    )
    # With more rows than columns W^T W is compared instead, which is less by the constant (C - k) /
    # C.
    assert float(penalties.orthogonality(TALL)) == pytest.approx(
        soft_orthogonality(rows(TALL)) - 4 / 6, rel=1e-5
    )
    assert float(penalties.orthogonality(torch.eye(4)[:3])) == 0.0
    assert float(penalties.orthogonality(torch.eye(4)[:, :3])) == 0.0


def test_the_smaller_gram_matrix_has_the_same_gradient() -> None:
    W = TALL.clone().requires_grad_()
    (got,) = torch.autograd.grad(penalties.orthogonality(W), W)
    (expected,) = torch.autograd.grad((W @ W.T - torch.eye(6)).square().sum() / 6, W)
    assert torch.allclose(got, expected, atol=1e-5)


def test_sums_over_filters_by_loops() -> None:
    norms = [length(row) for row in rows(WIDE)]
    assert float(penalties.norm(WIDE)) == pytest.approx(sum((1 - n) ** 2 for n in norms), rel=1e-5)
    assert float(penalties.group_lasso(WIDE)) == pytest.approx(sum(norms), rel=1e-5)
    assert float(penalties.hoyer(WIDE)) == pytest.approx(sum(norms) / length(norms), rel=1e-5)
    assert float(penalties.bn_l1(WIDE[0])) == pytest.approx(
        sum(abs(v) for v in rows(WIDE)[0]), rel=1e-5
    )
    gradient = torch.randn(3, 5, generator=G)
    expected = sum(
        math.exp(-abs(g)) * w * w
        for w, g in zip(sum(rows(WIDE), []), sum(rows(gradient), []), strict=True)  # noqa: RUF017
    )
    assert float(penalties.adaptive(WIDE, gradient)) == pytest.approx(expected, rel=1e-5)
    lambdas = torch.tensor([0.0, 2.0, 5.0])
    expected = 2 * norms[1] ** 2 + 5 * norms[2] ** 2
    assert float(penalties.growing(WIDE, lambdas)) == pytest.approx(expected, rel=1e-5)


def test_hoyer_counts_filters_and_ignores_scale() -> None:
    one, alike = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.ones(4, 2)
    assert float(penalties.hoyer(one)) == pytest.approx(1.0)
    assert float(penalties.hoyer(alike)) == pytest.approx(2.0)
    assert float(penalties.hoyer(7 * WIDE)) == pytest.approx(float(penalties.hoyer(WIDE)))
    assert math.isfinite(float(penalties.hoyer(torch.zeros(3, 2))))


def test_growth_is_largest_on_the_least_important() -> None:
    assert penalties.growth(torch.tensor([1.0, 5.0, 2.0])).tolist() == [1.0, 0.0, 0.75]
    assert penalties.growth(torch.full((3,), 2.0)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(5, 3),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv1d(3, 4, 2),
        nn.ConvTranspose2d(4, 6, 3),
        nn.ConvTranspose1d(4, 6, 2, groups=2),
    ],
    ids=str,
)
def test_a_filter_is_what_makes_one_output_channel(layer: nn.Module) -> None:
    """Zeroing row c of the filters silences output channel c and no other."""
    with torch.no_grad():
        layer.bias.zero_()  # type: ignore[union-attr, operator]
        inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        x = torch.randn(2, inputs, *[7] * (layer.weight.ndim - 2), generator=G)
        before = layer(x)
    W = filters(layer)
    assert len(W) == before.shape[1]
    (mine,) = torch.autograd.grad(W[1].sum(), layer.weight)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.mul_(1 - mine)  # type: ignore[operator, union-attr]
        after = layer(x)
    assert not after[:, 1].any()
    others = [c for c in range(len(W)) if c != 1]
    assert torch.equal(before[:, others], after[:, others])


def network() -> nn.Module:
    torch.manual_seed(0)
    tied = nn.Linear(6, 6)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), tied, nn.Sequential(tied),
        nn.Linear(6, 2), nn.BatchNorm1d(2, affine=False),
    )  # fmt: skip


def test_which_layers_are_penalised() -> None:
    model = network()
    assert list(penalised_layers("bn_l1", model)) == ["1"]
    assert list(penalised_layers("norm", model)) == ["0", "4", "6"]
    assert penalised_layers("bn_l1", nn.Linear(2, 2)) == {}


def penalty_of(
    kind: str, layers: Sequence[nn.Module], *, weight: float, steps: int = 1
) -> Callable[[], Tensor]:
    """The penalty with each layer's filters as a group of channels where it takes groups."""
    if kind in OVER_CHANNELS:
        return make_channel_penalty(
            kind, [partial(filters, m) for m in layers], weight=weight, steps=steps
        )
    return make_penalty(kind, layers, weight=weight)


@pytest.mark.parametrize("kind", PENALTIES)
def test_the_sum_over_layers_has_its_factor(kind: str) -> None:
    layers = list(penalised_layers(kind, network()).values())
    once = [penalty_of(kind, [m], weight=1.0)().item() for m in layers]
    assert penalty_of(kind, layers, weight=0.25)().item() == pytest.approx(
        0.25 * sum(once), rel=1e-5
    )


def test_the_adaptive_penalty_reads_the_gradient_in_place() -> None:
    layer = nn.Linear(4, 3)
    penalty = make_penalty("adaptive", [layer], weight=1.0)
    # No gradient yet: zero.
    assert penalty().item() == pytest.approx(layer.weight.square().sum().item(), rel=1e-5)
    layer.weight.grad = torch.randn(3, 4, generator=G)
    expected = penalties.adaptive(layer.weight, layer.weight.grad)
    assert penalty().item() == pytest.approx(expected.item(), rel=1e-5)


def test_growing_rises_to_full_force_and_goes_by_the_norms_at_the_start() -> None:
    layer = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0], [2.0, 0.0]]))  # norms 5, 1, 2
    penalty = penalty_of("growing", [layer], weight=0.5, steps=4)
    full = 0.5 * (1.0 * 1 + 0.75 * 4)
    assert [float(penalty()) for _ in range(5)] == pytest.approx(
        [full * s for s in (0.25, 0.5, 0.75, 1.0, 1.0)]
    )


def descended(kind: str, W: Tensor, *, steps: int = 300) -> Tensor:
    """Weights after gradient descent on the penalty alone."""
    layer = nn.Linear(W.shape[1], W.shape[0], bias=False)
    layer.weight.data.copy_(W)
    penalty = penalty_of(kind, [layer], weight=1.0, steps=steps)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(penalty(), layer.weight)
        layer.weight.data -= 0.02 * gradient
    return layer.weight.detach()


def test_descending_a_penalty_leads_where_it_should() -> None:
    W = torch.randn(3, 6, generator=G)
    orthogonal = descended("orthogonality", W)
    assert torch.allclose(orthogonal @ orthogonal.T, torch.eye(3), atol=0.05)
    assert torch.allclose(descended("norm", W).norm(dim=1), torch.ones(3), atol=0.01)
    assert float(descended("group_lasso", W).norm()) < 0.1
    start, end = W.norm(dim=1), descended("growing", W).norm(dim=1)
    weakest, strongest = int(start.argmin()), int(start.argmax())
    assert end[weakest] < 0.1 * start[weakest]
    assert end[strongest] == pytest.approx(float(start[strongest]), rel=1e-5)
    spread = descended("hoyer", W, steps=1000).norm(dim=1)
    assert spread.min() / spread.max() < 0.5 * start.min() / start.max()
