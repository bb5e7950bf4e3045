"""Parameter-efficient fine-tuning: small modules are put beside frozen layers and trained."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from petra.model.layers.adapters import Around


def around(model: nn.Module) -> Mapping[str, Around]:
    """The layers of `model` with something beside them, by path, outer ones first."""
    return {path: m for path, m in model.named_modules() if isinstance(m, Around)}


def inserted(model: nn.Module) -> Mapping[str, nn.Module]:
    """The modules that were inserted in `model` and are still apart, by path: each with the
    parameters that were added, and no others. ``around(model)[path without ".insert"].kind`` says
    what it is.
    """
    return {f"{path}.insert" if path else "insert": m.insert for path, m in around(model).items()}
