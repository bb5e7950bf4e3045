"""What the transformers here are made of."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import ConfigError


class SelfAttention(nn.Module):
    """Attention of a sequence to itself (Vaswani et al. 2017, section 3.2), its projections layers
    of their own: all that treats linear layers or removes heads treats them.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"heads: {heads} do not divide a width of {width}", hint="give a multiple of heads"
            )
        self.num_heads, self.head_dim = heads, width // heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(n, length, width) of the same. `mask`, (n, 1, 1, length), is true at positions that are
        attended to; at least one of each item is.
        """
        q, k, v = (self._heads(layer(x)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        mixed = functional.scaled_dot_product_attention(q, k, v, mask)
        found: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return found

    def _heads(self, x: Tensor) -> Tensor:
        """(n, length, heads * size) -> (n, heads, length, size)."""
        return x.reshape(*x.shape[:2], -1, self.head_dim).transpose(1, 2)


def feed_forward(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """The perceptron of a layer, the same at every position."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
    )
