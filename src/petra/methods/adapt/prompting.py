"""Putting a prompt before the first block of a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.model.channels.breakage import BREAKAGE, breakage_in_words
from petra.model.layers.prompts import Appended, Prompt, Prompted, WithoutPrompt
from petra.model.surgery import evaluating, replace_module
from petra.tasks.inputs import Inputs, call

_SPREAD = 0.02  # of states that no embedding gives: what vision transformers start with


def attach_prompt(
    model: nn.Module, example: Inputs, block: str, length: int, generator: torch.Generator
) -> str:
    """Insert a prompt before the first `block` of `model`, in place; where. Of token ids, states
    start as those of drawn tokens. Costs two forward passes.

    Raises StageRefused where the model takes none.
    """
    path = _of_tokens(model, block)
    try:
        if path:
            _before_tokens(model, example, path, block, length, generator)
        else:
            path, width = _first_states(model, example, block)
            states = _SPREAD * torch.randn(length, width, generator=generator)
            around = Appended(model.get_submodule(path), Prompt(states.to(_device(model))))
            replace_module(model, path, around)
        with evaluating(model), torch.no_grad():
            call(model, example)
    except BREAKAGE as error:
        raise StageRefused(
            f"layer {path or block!r} takes no prompt: {breakage_in_words(error)}",
            hint="set prompt to 0",
        ) from error
    return path


def _before_tokens(
    model: nn.Module,
    example: Inputs,
    path: str,
    block: str,
    length: int,
    generator: torch.Generator,
) -> None:
    """Put a prompt before the tokens of the model at `path`, which is around the block."""
    base: Any = model.get_submodule(path)
    table = base.get_input_embeddings()
    ids = torch.randint(0, table.num_embeddings, (length,), generator=generator)
    with torch.no_grad():
        states = table(ids.to(_device(model))).detach().float().clone()
    inside = _pools(model, base, example)
    if inside:
        part = block.removeprefix(f"{path}.").partition(".")[0]
        replace_module(base, part, WithoutPrompt(base.get_submodule(part), length))
    replace_module(model, path, Prompted(base, Prompt(states), inside=inside))


def _of_tokens(model: nn.Module, block: str) -> str:
    """The innermost model around a block that takes embeddings in place of token ids; ''."""
    path = block
    while path := path.rpartition(".")[0]:
        module = model.get_submodule(path)
        takes = "inputs_embeds" in inspect.signature(module.forward).parameters
        if takes and hasattr(module, "get_input_embeddings"):
            return path
    return ""


def _pools(model: nn.Module, base: nn.Module, example: Inputs) -> bool:
    """Whether the model inside pools its first state."""
    found: list[bool] = []

    def look(module: nn.Module, inputs: object, output: Any) -> None:
        pooled = output.get("pooler_output") if isinstance(output, Mapping) else None
        found.append(isinstance(pooled, Tensor))

    hook = base.register_forward_hook(look)
    try:
        with evaluating(model), torch.no_grad():
            call(model, example)
    finally:
        hook.remove()
    return any(found)


def _first_states(model: nn.Module, example: Inputs, block: str) -> tuple[str, int]:
    """The module that gives the block its input, and the width of that. Raises StageRefused."""
    made: dict[int, str] = {}
    held: list[Tensor] = []
    found: list[tuple[str, int]] = []

    def leave(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 3 and not found:
                made[id(output)] = path
                held.append(output)  # so that no other tensor gets its id

        return hook

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        states = next((t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)), None)
        if states is not None and not found:
            found.append((made.get(id(states), ""), states.shape[-1]))

    hooks = [m.register_forward_hook(leave(p)) for p, m in model.named_modules() if p]
    hooks.append(model.get_submodule(block).register_forward_pre_hook(enter, with_kwargs=True))
    try:
        with evaluating(model), torch.no_grad():
            call(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    if not found or not found[0][0]:
        raise StageRefused(
            f"what gives layer {block!r} its first states cannot be followed",
            hint="set prompt to 0",
        )
    return found[0]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
