"""Targets of any magnitude: a network that predicts standardised values, and the way back to the
targets' own unit behind it, inside the file that ships.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from petra.core.errors import ConfigError, DataError
from petra.core.interface import judged_output
from petra.core.text import shown
from petra.tasks.targets import real_values
from petra.tasks.tensors import apply_at_full_precision


class Rescaled(nn.Module):
    """`model(...) * scale + offset`: for a model that was, or is to be, trained on targets
    (y - offset) / scale.

    offset, scale: numbers, or arrays that broadcast to the predictions of an item, such as one
    number for each of several outputs. They are kept in the model, change with no training, and
    ship inside the exported file. Whatever precision the network computes in, this is computed in
    float32, in which it adds one rounding. Of several outputs the one that a task judges is scaled:
    ``logits``, or else the first. Called as the model is, by position or by name.

    >>> y = train_targets
    >>> whole = petra.Rescaled(model, offset=y.mean(0), scale=y.std(0))

    Raises ConfigError for what is no finite number, and for a scale of 0.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, model: nn.Module, *, offset: object = 0.0, scale: object = 1.0) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("offset", _numbers(offset, "offset"))
        self.register_buffer("scale", _numbers(scale, "scale"))
        if not bool(self.scale.all()):
            raise ConfigError("scale: got 0", hint="of targets that are all alike, leave it at 1")

    @classmethod
    def fit(cls, model: nn.Module, targets: object) -> Self:
        """With the mean and the standard deviation of training targets, (n,) or (n, outputs); of an
        output whose targets are all alike, 1. Raises DataError for other targets.
        """
        y = real_values(targets, where="targets").double()
        if y.ndim not in (1, 2) or not len(y) or not bool(y.isfinite().all()):
            raise DataError(
                f"targets: got shape {tuple(y.shape)}",
                hint="(n,) or (n, outputs) finite numbers; for others give offset and scale",
            )
        alike = (y == y[:1]).all(0)  # whose deviation may be a rounding
        return cls(model, offset=y.mean(0), scale=y.std(0, correction=0).masked_fill(alike, 1.0))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        value = self.model(*args, **kwargs)
        if isinstance(value, Tensor):
            return self._back(value)
        if isinstance(value, Mapping):
            main = judged_output([str(k) for k, v in value.items() if isinstance(v, Tensor)])
            return {k: self._back(v) if str(k) == main else v for k, v in value.items()}
        main_index = next(i for i, v in enumerate(value) if isinstance(v, Tensor))
        return tuple(self._back(v) if i == main_index else v for i, v in enumerate(value))

    def in_words(self) -> str:
        """What it does to the output, for people."""
        scale, offset = (
            ", ".join(f"{v:.4g}" for v in t.flatten()[:8].tolist())
            for t in (self.scale, self.offset)
        )
        more = ", ..." if max(self.scale.numel(), self.offset.numel()) > 8 else ""
        return (
            f"puts the output on the scale of the targets: times {scale}{more}, plus {offset}{more}"
        )

    def _back(self, prediction: Tensor) -> Tensor:
        # Both have an axis, so a product with 16-bit predictions is in float32.
        return prediction * self.scale + self.offset

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Self:
        """As every module, but for the precision of `offset` and `scale`: that of the targets is
        no matter of the network's.
        """
        return apply_at_full_precision(self, fn, recurse, ("offset", "scale"))

    def extra_repr(self) -> str:
        return f"offset={self.offset.tolist()}, scale={self.scale.tolist()}"


def _numbers(value: object, name: str) -> Tensor:
    """As float32 with an axis at least."""
    try:
        found = torch.as_tensor(value, dtype=torch.float32).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name}: got {shown(value)}", hint="a number or an array") from error
    if not found.numel() or not bool(found.isfinite().all()):
        raise ConfigError(f"{name}: got {shown(value)}", hint="finite numbers")
    return found if found.ndim else found.reshape(1)
