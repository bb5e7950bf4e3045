"""What is inserted around layers, as files tell of it: settings, tensors and their shapes, and the
modules made of these, with values that have yet to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from petra.core.pipeline import Value
from petra.methods.adapt.files.base_view import bare
from petra.model.kinds import is_transposed_linear
from petra.model.layers.adapters import ACTIVATIONS, Bottleneck
from petra.model.layers.lora import LowRank, sizes
from petra.model.layers.prefix import KNOWN, LearningPrefix, Prefix, attention_of
from petra.model.layers.prompts import Prompt
from petra.space.domains import Choice, Domain, Integer, Real

Settings = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]

COUNT = Integer(1, 1 << 24)
FACTOR, SHARE = Real(-1e9, 1e9), Real(0.0, 1.0)


def insert_of(holder: nn.Module) -> nn.Module | None:
    """What was inserted, as it is after training: its parameters are what is stored. None for what
    only reads or takes away.
    """
    insert: nn.Module | None = holder._modules.get("insert")
    return insert.settled() if isinstance(insert, LearningPrefix) else insert


# -- bottleneck adapters ---------------------------------------------------------------------------

BOTTLENECK: Mapping[str, Domain] = {
    "width": COUNT,
    "size": COUNT,
    "activation": Choice(ACTIVATIONS),
    "scale": FACTOR,
    "dropout": SHARE,
}


def bottleneck_said(holder: Any) -> dict[str, Value]:
    insert = holder.insert
    return {
        "width": insert.up.out_features,
        "size": insert.down.out_features,
        "activation": insert.activation,
        "scale": insert.scale,
        "dropout": insert.dropout,
    }


def bottleneck_shapes(layer: nn.Module, s: Settings) -> Shapes:
    width, size = s["width"], s["size"]
    return {
        "down.weight": (size, width),
        "down.bias": (size,),
        "up.weight": (width, size),
        "up.bias": (width,),
    }


def bottleneck(s: Settings) -> Bottleneck:
    return Bottleneck(
        s["width"],
        s["size"],
        activation=s["activation"],
        scale=s["scale"],
        dropout=s["dropout"],
        generator=torch.Generator(),
    )


def other_width(layer: nn.Module, s: Settings) -> str:
    found = _linear_sizes(layer)
    return f"{found[1]} wide" if found and found[1] != s["width"] else ""


# -- low-rank changes and vectors ------------------------------------------------------------------

LOW_RANK: Mapping[str, Domain] = {"rank": COUNT, "scale": FACTOR, "dropout": SHARE}


def low_rank_said(holder: Any) -> dict[str, Value]:
    insert = holder.insert
    return {
        "rank": insert.down.out_features,
        "scale": insert.scale,
        "dropout": insert.dropout,
    }


def low_rank_shapes(layer: nn.Module, s: Settings) -> Shapes:
    inputs, outputs = sizes(bare(layer))
    return {"down.weight": (s["rank"], inputs), "up.weight": (outputs, s["rank"])}


def directed_shapes(layer: nn.Module, s: Settings) -> Shapes:
    return {"magnitude": (sizes(bare(layer))[1],), **low_rank_shapes(layer, s)}


def low_rank(cls: type[LowRank], layer: nn.Module, s: Settings) -> Any:
    inputs, outputs = sizes(bare(layer))
    return cls(
        inputs,
        outputs,
        s["rank"],
        scale=s["scale"],
        dropout=s["dropout"],
        generator=torch.Generator(),
    )


def not_linear(layer: nn.Module, s: Settings) -> str:
    return "" if _linear_sizes(layer) else "no linear layer"


def _linear_sizes(layer: nn.Module) -> tuple[int, int] | None:
    """Widths of a linear layer of any make, None for any other."""
    module = bare(layer)
    if is_transposed_linear(module) or hasattr(module, "in_features"):
        return sizes(module)
    return None


def vector_unfit(layer: nn.Module, s: Settings) -> str:
    found = _linear_sizes(layer)
    if found and found[s["side"] == "output"] != s["size"]:
        return f"{found[0]} wide where it is read, {found[1]} where it is made"
    return ""


def bias_unfit(layer: nn.Module, s: Settings) -> str:
    bias = bare(layer)._parameters.get("bias")
    if bias is not None and tuple(bias.shape) != (s["size"],):
        return f"with a bias of shape {tuple(bias.shape)}"
    return ""


# -- prompts and prefixes --------------------------------------------------------------------------


def prefix_said(holder: Any) -> dict[str, Value]:
    insert = insert_of(holder)
    assert isinstance(insert, Prefix)
    _, length, heads, size = insert.states.shape
    return {"length": length, "heads": heads, "size": size}


def prefix_unfit(layer: nn.Module, s: Settings) -> str:
    name = attention_of(bare(layer))
    if name not in KNOWN:
        return f"with {name} for attention" if name else "no attention of a Hugging Face model"
    return ""


def prompt_said(holder: Any) -> dict[str, Value]:
    length, width = holder.insert.states.shape
    return {"length": length, "width": width}


def prompt_shapes(layer: nn.Module, s: Settings) -> Shapes:
    return {"states": (s["length"], s["width"])}


def prompt(s: Settings) -> Prompt:
    return Prompt(torch.empty(s["length"], s["width"]))


def no_tensors(layer: nn.Module, s: Settings) -> Shapes:
    return {}
