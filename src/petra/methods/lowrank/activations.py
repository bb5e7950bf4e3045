"""Second moments of what layers compute on calibration data, which is all that activation-aware
truncation needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petra.methods.lowrank.unfold import unfold
from petra.model.kinds import Convolution
from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, call


@dataclass
class Moments:
    """Sums over rows y = W x (m,) of a layer's outputs without bias, in W's column space.

    `basis` Q (m, p) is orthonormal, or None for the identity; gram (p, p) = sum of Q^T y y^T Q;
    total (p,) = sum of Q^T y.
    """

    basis: Tensor | None
    gram: Tensor
    total: Tensor
    rows: int = 0

    def add(self, y: Tensor) -> None:
        """Count rows y (rows, m)."""
        y = y.double()
        if self.basis is not None:
            y = y @ self.basis
        self.gram += y.T @ y
        self.total += y.sum(0)
        self.rows += len(y)

    def principal(self) -> tuple[Tensor, Tensor]:
        """Energies (p,), descending: the squared singular values of W X; and directions (m, p),
        orthonormal columns.
        """
        values, vectors = torch.linalg.eigh(self.gram)
        directions = vectors.flip(1)
        return values.flip(0).clamp(min=0), (
            directions if self.basis is None else self.basis @ directions
        )

    def variance(self) -> float:
        """Sum of squared deviations of the rows from their mean."""
        return float(self.gram.trace() - self.total.square().sum() / max(1, self.rows))


def output_moments(
    model: nn.Module, layers: Mapping[str, str], batches: Iterable[Inputs]
) -> dict[str, Moments]:
    """Moments of the outputs of the layers at the given paths (-> how they are unfolded) while
    `model` sees `batches`.

    Cost: one forward pass, and a product of the outputs with themselves; memory (p, p) in double
    per layer.
    """
    found: dict[str, Moments] = {}
    hooks = []
    for path, how in layers.items():
        layer = model.get_submodule(path)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        found[path] = _empty(unfold(weight.detach(), how))
        hooks.append(layer.register_forward_hook(_recorder(found[path])))
    try:
        with evaluating(model), torch.no_grad():
            for inputs in batches:
                call(model, inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def _recorder(moments: Moments) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(layer: nn.Module, inputs: object, output: Tensor) -> None:
        channels = 1 if isinstance(layer, Convolution) else -1
        y = output.movedim(channels, -1).flatten(0, -2)
        bias = getattr(layer, "bias", None)
        moments.add(y if bias is None else y - bias)

    return hook


def _empty(W: Tensor) -> Moments:
    """For tall matrices (a classifier over a vocabulary) in coordinates of their column space,
    which is smaller.
    """
    m, n = W.shape
    basis = torch.linalg.qr(W.double()).Q if m > n else None
    p = min(m, n)
    return Moments(
        basis,
        torch.zeros(p, p, dtype=torch.double, device=W.device),
        torch.zeros(p, dtype=torch.double, device=W.device),
    )
