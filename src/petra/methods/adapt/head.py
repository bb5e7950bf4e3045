"""The head of a model: what runs after its last block, and is trained whatever is adapted."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

from torch import nn

from petra.model.surgery import evaluating, is_under
from petra.tasks.inputs import Inputs, call


def head_of(model: nn.Module, example: Inputs, blocks: Collection[str]) -> tuple[str, ...]:
    """Paths of the modules with weights of their own that first run after the last of the `blocks`
    has ended: final norms, poolers, classifiers.

    Weights that a module before holds, too (tied embeddings), are no head's. Cost: one forward
    pass.
    """
    began: dict[str, int] = {}
    ended = 0
    clock = count(1)
    hooks = []

    def beginning(path: str) -> None:
        began.setdefault(path, next(clock))

    def ending() -> None:
        nonlocal ended
        ended = next(clock)

    for path, module in model.named_modules():
        if path in blocks:
            hooks.append(module.register_forward_hook(lambda *_: ending()))
        if any(True for _ in module.parameters(recurse=False)):
            hooks.append(module.register_forward_pre_hook(lambda *_, path=path: beginning(path)))
    try:
        with evaluating(model):
            call(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    inside = frozenset(blocks)
    after = [p for p, at in began.items() if at > ended and not is_under(p, inside)]
    return tuple(p for p in after if not _tied(model, p, after))


def _tied(model: nn.Module, path: str, head: Collection[str]) -> bool:
    """Whether a module of the head shares a parameter with one outside of it."""
    own = {id(p) for p in model.get_submodule(path).parameters(recurse=False)}
    return any(
        id(p) in own
        for other, module in model.named_modules()
        if other not in head
        for p in module.parameters(recurse=False)
    )
