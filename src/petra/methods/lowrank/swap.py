"""Putting factors in the place of layers, as far as the model runs with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from petra.model.surgery import evaluating, replace_module
from petra.tasks.inputs import Inputs, call


def swap(
    model: nn.Module, replacements: Mapping[str, nn.Module], example: Inputs
) -> dict[str, str]:
    """Put modules at paths; those with which the model does not run are taken back.

    Returns these with the reason.

    Some models reach into a layer for what a replacement does not have. Cost: one forward pass if
    all is well, one for each replacement otherwise.
    """
    before = {path: model.get_submodule(path) for path in replacements}
    for path, module in replacements.items():
        replace_module(model, path, module)
    if not _complaint(model, example):
        return {}
    for path, module in before.items():
        replace_module(model, path, module)
    reasons = {}
    for path, module in replacements.items():
        replace_module(model, path, module)
        if complaint := _complaint(model, example):
            replace_module(model, path, before[path])
            reasons[path] = f"the model uses it other than by calling it ({complaint})"
    return reasons


def _complaint(model: nn.Module, example: Inputs) -> str:
    """What goes wrong when the model runs, in one line; '' if nothing does."""
    try:
        with evaluating(model), torch.no_grad():
            call(model, example)
    except (
        AttributeError,
        TypeError,
        RuntimeError,
        ValueError,
        LookupError,
        AssertionError,
    ) as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    return ""
