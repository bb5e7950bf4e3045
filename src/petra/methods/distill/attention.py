"""Attention maps: the probabilities that transformers compute, and where features are strong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def are_probabilities(tensor: Tensor) -> bool:
    """Whether it looks like attention (batch, heads, queries, keys): rows >= 0 that sum to one."""
    if tensor.ndim != 4 or not tensor.is_floating_point() or tensor.shape[-1] < 2:
        return False
    sums = tensor.float().sum(-1)
    return bool((tensor >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def spatial_attention(features: Tensor) -> Tensor:
    """(B, *spatial) sum over channels of the squares of features (B, C, *spatial), of unit length
    for every item.

    Zagoruyko & Komodakis 2017, activation-based attention transfer with p = 2.
    """
    energy = features.square().sum(1)
    lengths: Tensor = torch.linalg.vector_norm(energy.flatten(1), dim=1).clamp_min(1e-12)
    return energy / lengths.reshape(-1, *[1] * (energy.ndim - 1))


@contextmanager
def attention_shown(*models: nn.Module) -> Iterator[None]:
    """Inside, attention layers compute their probabilities and put them out beside their output.

    Fused kernels have none, so Hugging Face models use their "eager" attention meanwhile and
    nn.MultiheadAttention is asked for the weights of every head; both go back to what they were.
    Others are left as they are.
    """
    before: list[tuple[Any, object]] = []
    handles = []
    try:
        for model in models:
            before += [(c, c._attn_implementation_internal) for c in _hugging_face_configs(model)]
            for module in model.modules():
                if isinstance(module, nn.MultiheadAttention):
                    handles.append(
                        module.register_forward_pre_hook(_with_weights, with_kwargs=True)
                    )
                pretrained: Any = module
                if (
                    hasattr(module, "set_attn_implementation")
                    and pretrained.config._attn_implementation != "eager"
                ):
                    pretrained.set_attn_implementation("eager")
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation
        for handle in handles:
            handle.remove()


@contextmanager
def without_dropout(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, layers that put out their probabilities drop none of them, whatever mode they are in.

    What is put out are the weights after dropout. A student a that trains, compared with a teacher
    t that does not, would be drawn to flat maps: with a share of p dropped, E ||drop(a) - t||^2 =
    ||a - t||^2 + p / (1 - p) ||a||^2. Dropout of anything else stays.
    """
    functional = set(layers)  # they read their own mode where they call dropout as a function
    parts = {
        part for layer in functional for part in layer.children() if isinstance(part, nn.Dropout)
    }
    before: list[bool] = []

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        before.append(module.training)
        module.training = module.training and module in parts and args[0].ndim != 4

    def leave(module: nn.Module, args: object, output: object) -> None:
        module.training = before.pop()

    handles = []
    try:
        for module in functional | parts:
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hugging_face_configs(model: nn.Module) -> list[Any]:
    """Every configuration in the model, or part of one, that says how attention is computed."""
    found: dict[int, Any] = {}
    stack = [getattr(module, "config", None) for module in model.modules()]
    while stack:
        config: Any = stack.pop()
        if hasattr(config, "_attn_implementation_internal") and id(config) not in found:
            found[id(config)] = config
            stack += [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
    return list(found.values())


def _with_weights(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    if len(args) > 4:  # need_weights given by position
        args = (*args[:4], True, *args[5:])
    else:
        kwargs = {**kwargs, "need_weights": True}
    return args, {**kwargs, "average_attn_weights": False}
