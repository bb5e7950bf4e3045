"""A model's outline: modules, kinds, widths and sizes, as plain data for declarations."""

from __future__ import annotations

from torch import nn

from petra.model.kinds import BatchNorm, Convolution, is_transposed_linear, widths
from petra.space.outline import ModelOutline, ModuleOutline

_WIDTHS = (
    ("in_features", "out_features"),
    ("in_channels", "out_channels"),
    ("num_embeddings", "embedding_dim"),
    ("input_size", "hidden_size"),
    ("embed_dim", "embed_dim"),
)


def outline_of(model: nn.Module) -> ModelOutline:
    """The outline of `model`.

    Reads no weights; a module found under several paths has the first.
    """
    return ModelOutline(
        tuple(
            ModuleOutline(
                path,
                type(module).__name__,
                *_in_and_out(module),
                sum(p.numel() for p in module.parameters()),
                _role(module),
            )
            for path, module in model.named_modules()
        )
    )


def _role(module: nn.Module) -> str:
    """What a module is, one of `ROLES`, or ''."""
    kinds: dict[str, tuple[type[nn.Module], ...]] = {
        "convolution": (Convolution,),
        "linear": (nn.Linear,),
        "embedding": (nn.Embedding, nn.EmbeddingBag),
        "recurrent": (nn.RNNBase, nn.RNNCellBase),
        "attention": (nn.MultiheadAttention,),
        "batch norm": (BatchNorm,),
    }
    if is_transposed_linear(module):
        return "linear"
    named = "attention" if "attention" in type(module).__name__.lower() else ""
    return next((role for role, classes in kinds.items() if isinstance(module, classes)), named)


def _in_and_out(module: nn.Module) -> tuple[int, int]:
    """Widths of what goes in and comes out, by the names that torch's layers have for them; zeros
    where a module has none.
    """
    if is_transposed_linear(module):
        return widths(module)
    for names in _WIDTHS:
        inputs, outputs = (getattr(module, name, None) for name in names)
        if type(inputs) is int and type(outputs) is int:
            return inputs, outputs
    return 0, 0
