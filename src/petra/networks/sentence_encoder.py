"""A sentence encoder: a transformer, its token states pooled into one vector (Reimers & Gurevych
2019), and what may stand behind that. What sentence-transformers' layers compute, in plain ones
that every stage and exporter knows.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
"""Ways to make one vector of the states of a text's tokens."""


class TokenPooling(nn.Module):
    """States (n, length, d) and mask (n, length) -> (n, d times the number of `modes`)."""

    def __init__(self, modes: Iterable[str]) -> None:
        super().__init__()
        self.modes = tuple(modes)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(-1).to(states.dtype)
        parts = [self._pooled(mode, states, weights, mask) for mode in self.modes]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    @staticmethod
    def _pooled(mode: str, states: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
        match mode:
            case "cls":
                return states[:, 0]
            case "max":
                return states.masked_fill(weights == 0, -1e9).amax(1)
            case "lasttoken":
                # Behind the last token that counts there is only padding, whichever side that is.
                last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
                index = last[:, None, None].expand(-1, 1, states.shape[2])
                return states.gather(1, index).squeeze(1)
            case "weightedmean":  # later tokens weigh more (Muennighoff 2022)
                place = torch.arange(1, states.shape[1] + 1, device=states.device)
                weights = weights * place[None, :, None].to(states.dtype)
        total = (states * weights).sum(1)
        count = weights.sum(1).clamp_min(1e-9)
        return total / (count.sqrt() if mode == "mean_sqrt_len" else count)


class UnitLength(nn.Module):
    """Vectors (n, d) of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=-1)


class SentenceEncoder(nn.Module):
    """Token numbers and mask, int64 (n, length) -> embeddings (n, d).

    `encoder` is a Hugging Face transformer, `pooling` makes a vector of its last states, `after`
    are layers behind it.
    """

    def __init__(self, encoder: nn.Module, pooling: TokenPooling, after: nn.Sequential) -> None:
        super().__init__()
        self.encoder, self.pooling, self.after = encoder, pooling, after

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types)
        embedding: Tensor = self.after(self.pooling(outputs[0], attention_mask))
        return embedding
