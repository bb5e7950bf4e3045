"""Putting modules in their places in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.methods.adapt.places import Attending, Places
from petra.model.layers.adapters import Bottleneck, Line, ParallelAdapter, SerialAdapter, Tap
from petra.model.layers.lora import Directed, DoraLayer, LoraLayer, LowRank, lora_scale, sizes
from petra.model.layers.prefix import KNOWN, LearningPrefix, Prefixed, attention_of
from petra.model.layers.vectors import ScaledLayer, ShiftedLayer, Vector
from petra.model.surgery import replace_module


@dataclass(frozen=True)
class Wanted:
    """What to insert, as the stage's parameters of these names have it; 0 or False is nothing."""

    serial: int = 0
    serial_at: str = "feed_forward"
    parallel: int = 0
    prefix: int = 0
    lora: int = 0
    prompt: int = 0
    lora_kind: str = "lora"
    lora_targets: str = "query_value"
    ia3: bool = False
    bitfit: bool = False
    activation: str = "relu"
    scaling: float = 1.0
    dropout: float = 0.0

    @property
    def in_blocks(self) -> bool:
        """Whether any of it belongs into blocks: a prompt does not."""
        return bool(
            self.serial or self.parallel or self.prefix or self.lora or self.ia3 or self.bitfit
        )


def attach(
    model: nn.Module, places: Iterable[Places], wanted: Wanted, generator: torch.Generator
) -> dict[str, list[str]]:
    """Insert what is wanted into blocks of `model`, in place; which layers got what, by the words
    for modules. Inner first: a layer's own weights (LoRA), its bias, IA3, then adapters.

    A layer of several blocks, or of one that is called more than once, gets one module. Raises
    StageRefused, naming the layer, for a prefix where none can be put.
    """
    touched: dict[str, list[str]] = {}
    for block in places:
        for path in _lora_targets(block, wanted):
            _wrap(model, path, touched, "lora", lambda m: _low_rank(m, wanted, generator))
        for path in block.biased if wanted.bitfit else ():
            _wrap(model, path, touched, "bitfit", _shifted)
        if wanted.ia3:
            for path in _keys_and_values(block):
                _wrap(model, path, touched, "ia3", lambda m: _scaled(m, "output"))
            _wrap(model, block.last, touched, "ia3", lambda m: _scaled(m, "input"))
        if wanted.serial:
            for path in _serial_at(block, wanted):
                _wrap(model, path, touched, "serial", lambda m: _serial(m, wanted, generator))
        if wanted.parallel:
            _parallel(model, block, touched, wanted, generator)
        for attending in block.attentions if wanted.prefix else ():
            _prefix(model, attending, touched, wanted.prefix, generator)
    return touched


def _wrap(
    model: nn.Module,
    path: str,
    touched: dict[str, list[str]],
    kind: str,
    around: Callable[[Any], nn.Module],
) -> None:
    """Put a module around the one at `path`, once for every kind."""
    if path not in touched.setdefault(kind, []):
        replace_module(model, path, around(model.get_submodule(path)))
        touched[kind].append(path)


def _lora_targets(block: Places, wanted: Wanted) -> list[str]:
    if not wanted.lora:
        return []
    found: list[str] = []
    for a in block.attentions:
        found += [a.query, a.value]
        if wanted.lora_targets != "query_value":
            found += [a.key, a.output]
    if wanted.lora_targets == "all":
        found += [*block.first, block.last]
    return list(dict.fromkeys(found))


def _keys_and_values(block: Places) -> list[str]:
    return list(dict.fromkeys(p for a in block.attentions for p in (a.key, a.value)))


def _serial_at(block: Places, wanted: Wanted) -> list[str]:
    outputs = [a.output for a in block.attentions] if wanted.serial_at == "both" else []
    return [*outputs, block.last]


def _low_rank(layer: Any, wanted: Wanted, generator: torch.Generator) -> nn.Module:
    options: dict[str, Any] = {
        "scale": lora_scale(wanted.lora, wanted.lora_kind),
        "dropout": wanted.dropout,
        "generator": generator,
    }
    if wanted.lora_kind == "dora":
        return DoraLayer(layer, Directed(*sizes(layer), wanted.lora, **options))
    return LoraLayer(layer, LowRank(*sizes(layer), wanted.lora, **options))


def _shifted(layer: Any) -> nn.Module:
    return ShiftedLayer(layer, Vector(len(layer.bias), 0.0))


def _scaled(layer: Any, side: str) -> nn.Module:
    return ScaledLayer(layer, Vector(sizes(layer)[side == "output"], 1.0), side)


def _serial(layer: Any, wanted: Wanted, generator: torch.Generator) -> nn.Module:
    return SerialAdapter(
        layer,
        Bottleneck(
            sizes(layer)[1],
            wanted.serial,
            activation=wanted.activation,
            dropout=wanted.dropout,
            generator=generator,
        ),
    )


def _parallel(
    model: nn.Module,
    block: Places,
    touched: dict[str, list[str]],
    wanted: Wanted,
    generator: torch.Generator,
) -> None:
    if not block.first:
        raise StageRefused(
            f"layer {block.last!r}: which layer reads the input of its network cannot be followed",
            hint="set parallel to 0, or leave this block out",
        )
    first = model.get_submodule(block.first[0])
    width = sizes(first)[0]
    line = Line()
    insert = Bottleneck(
        width,
        wanted.parallel,
        activation=wanted.activation,
        scale=wanted.scaling,
        dropout=wanted.dropout,
        generator=generator,
    )
    replace_module(model, block.first[0], Tap(first, line))
    _wrap(model, block.last, touched, "parallel", lambda m: ParallelAdapter(m, insert, line))


def _prefix(
    model: nn.Module,
    attending: Attending,
    touched: dict[str, list[str]],
    length: int,
    generator: torch.Generator,
) -> None:
    name = attention_of(model.get_submodule(attending.path)) if attending.path else ""
    if name not in KNOWN:
        place = attending.path or attending.output
        why = f"its attention is {name}" if name else "its attention is the model's own code"
        raise StageRefused(
            f"layer {place!r} can have no prefix: {why}",
            hint=f"prefixes need one of Hugging Face's functions {', '.join(KNOWN)}: set prefix"
            " to 0",
        )
    insert = LearningPrefix(length, attending.heads, attending.size, generator=generator)
    _wrap(model, attending.path, touched, "prefix", lambda m: Prefixed(m, insert))
