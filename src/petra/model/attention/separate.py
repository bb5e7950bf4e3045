"""torch's own attention with its projections apart, so that heads can be removed from it."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from petra.model.attention.heads import Edits, Undo, within
from petra.model.surgery import has_derived_weight, shared_weights


class HeadwiseAttention(nn.Module):
    """`nn.MultiheadAttention` with its projections apart, so that it can hold fewer heads than its
    width has room for.

    Takes and returns the same, by the same names, without `bias_k`, `bias_v` and `add_zero_attn`.
    """

    # nn.TransformerEncoderLayer asks for these before it would use its fused kernel, which needs
    # all heads.
    in_proj_weight = None
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = (
            source.embed_dim,
            source.num_heads,
            source.head_dim,
        )
        self.dropout, self.batch_first = source.dropout, source.batch_first
        weights = (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        fused = source.in_proj_weight
        biases: tuple[Tensor | None, ...] = (None, None, None)
        if source.in_proj_bias is not None:
            biases = source.in_proj_bias.chunk(3)
        q, k, v = weights if fused is None else fused.chunk(3)
        grad = (fused if fused is not None else source.q_proj_weight).requires_grad
        self.q_proj, self.k_proj, self.v_proj = (
            _linear(weight, bias, grad) for weight, bias in zip((q, k, v), biases, strict=True)
        )
        self.out_proj = _linear(
            source.out_proj.weight, source.out_proj.bias, source.out_proj.weight.requires_grad
        )
        if "keep_zeros" in vars(source.out_proj):  # its zeros were pruned
            vars(self.out_proj)["keep_zeros"] = vars(source.out_proj)["keep_zeros"]

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention`; `is_causal` is a hint; `attn_mask` says the same."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q, k, v = (
            self._heads(self.q_proj(query)),
            self._heads(self.k_proj(key)),
            self._heads(self.v_proj(value)),
        )
        mask = self._mask(attn_mask, key_padding_mask, q.dtype)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            weights = nn.functional.dropout(weights, dropout, self.training)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return output[0], None if weights is None else weights[0]
        return output if self.batch_first else output.transpose(0, 1), weights

    def _heads(self, x: Tensor) -> Tensor:
        """(n, length, heads * size) -> (n, heads, length, size)."""
        return x.reshape(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def _mask(
        self, attention: Tensor | None, padding: Tensor | None, dtype: torch.dtype
    ) -> Tensor | None:
        """What is added to the scores: both masks, (L, S) or (n * heads, L, S), and (n, S), True
        meaning keep out.
        """
        total = None
        if attention is not None:
            total = _additive(attention, dtype)
            if total.dim() == 3:
                total = total.reshape(-1, self.num_heads, *total.shape[1:])
        if padding is not None:
            added = _additive(padding, dtype)[:, None, None]
            total = added if total is None else total + added
        return total


def separate_attention(
    model: nn.Module, *, only: Collection[str] | None = None
) -> tuple[Undo, dict[str, str]]:
    """Put `HeadwiseAttention` in place of every `nn.MultiheadAttention` (or those in `only`).

    Returns how to put them back, and why some stay. The weights are copies, but those of the output
    projection.
    """
    shared = shared_weights(model)
    edits = Edits()
    refused: dict[str, str] = {}
    for path, module in list(model.named_modules()):
        if not isinstance(module, nn.MultiheadAttention) or not (only is None or path in only):
            continue
        if not path or type(module) is not nn.MultiheadAttention:
            refused[path] = (
                f"a {type(module).__name__} may compute what its projections alone do not tell"
            )
        elif any(within(p, path) for p in shared):
            refused[path] = "shares a weight with another layer"
        elif any(has_derived_weight(m) for m in module.modules()):
            refused[path] = "its weights are computed from other parameters"
        elif module.bias_k is not None or module.add_zero_attn:
            refused[path] = "it adds a learnt or a zero position to the keys"
        else:
            parent, _, name = path.rpartition(".")
            new = HeadwiseAttention(module)
            new.training = module.training
            edits.put(model.get_submodule(parent)._modules, name, new)
    return edits.undo, refused


def unfuse(model: nn.Module) -> None:
    """Let torch's transformer layers always take their plain form, in place.

    The fused one reads weights of layers that stages replace, and is not what files hold: see
    `petra.tasks.passes.plain_attention`.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
        elif isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # "of a kind for which there is no fused form"


def _linear(weight: Tensor, bias: Tensor | None, requires_grad: bool) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad)
    return layer


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype is torch.bool:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)
    return mask.to(dtype)
