"""The kinds of modules that files hold: what is written of each, the tensors it has, and how it is
put around a layer again.

A file names a kind of this table and settings within its domains; nothing else of it becomes code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from petra.core.pipeline import Value
from petra.methods.adapt.files.inserts import (
    BOTTLENECK,
    COUNT,
    LOW_RANK,
    Settings,
    Shapes,
    bias_unfit,
    bottleneck,
    bottleneck_said,
    bottleneck_shapes,
    directed_shapes,
    low_rank,
    low_rank_said,
    low_rank_shapes,
    no_tensors,
    not_linear,
    other_width,
    prefix_said,
    prefix_unfit,
    prompt,
    prompt_said,
    prompt_shapes,
    vector_unfit,
)
from petra.model.layers.adapters import Holding, Line, ParallelAdapter, SerialAdapter, Tap
from petra.model.layers.lora import Directed, DoraLayer, LoraLayer, LowRank
from petra.model.layers.prefix import Prefix, Prefixed
from petra.model.layers.prompts import Appended, Prompted, WithoutPrompt
from petra.model.layers.vectors import ScaledLayer, ShiftedLayer, Vector
from petra.space.domains import BOOLEAN, Choice, Domain, Integer

_INDEX = Integer(0, 1 << 24)


@dataclass
class Lines:
    """The lines of a model that is put together: from each tap to its adapter."""

    by_number: dict[int, Line] = field(default_factory=dict)

    def line(self, number: int) -> Line:
        return self.by_number.setdefault(number, Line())

    def number(self, line: Line) -> int:
        """That of a line, the next one for a line not met before."""
        for number, known in self.by_number.items():
            if known is line:
                return number
        self.by_number[len(self.by_number)] = line
        return len(self.by_number) - 1


@dataclass(frozen=True)
class Kind:
    """One class of `Holding`. `settings` are what it is made from, which `said` reads off one;
    `shapes` are those of the tensors that are stored of it; `hold` makes one around a layer, with
    values that have yet to come. `unfit` says what a layer is that it does not fit, '' where it
    does.
    """

    cls: type[Holding]
    settings: Mapping[str, Domain]
    said: Callable[[Any, Lines], dict[str, Value]]
    shapes: Callable[[nn.Module, Settings], Shapes]
    hold: Callable[[nn.Module, Settings, Lines], Holding]
    unfit: Callable[[nn.Module, Settings], str] = lambda layer, settings: ""


def kind_of(holder: Holding) -> str | None:
    """The name of a module's kind in `KINDS`, None for one that files do not hold."""
    return next((name for name, kind in KINDS.items() if type(holder) is kind.cls), None)


KINDS: Mapping[str, Kind] = {
    "serial": Kind(
        SerialAdapter,
        BOTTLENECK,
        lambda m, lines: bottleneck_said(m),
        bottleneck_shapes,
        lambda layer, s, lines: SerialAdapter(layer, bottleneck(s)),
        other_width,
    ),
    "tap": Kind(
        Tap,
        {"line": _INDEX},
        lambda tap, lines: {"line": lines.number(tap.line)},
        no_tensors,
        lambda layer, s, lines: Tap(layer, lines.line(s["line"])),
    ),
    "parallel": Kind(
        ParallelAdapter,
        {"line": _INDEX, **BOTTLENECK},
        lambda m, lines: {"line": lines.number(m.line), **bottleneck_said(m)},
        bottleneck_shapes,
        lambda layer, s, lines: ParallelAdapter(layer, bottleneck(s), lines.line(s["line"])),
        other_width,
    ),
    "lora": Kind(
        LoraLayer,
        LOW_RANK,
        lambda m, lines: low_rank_said(m),
        low_rank_shapes,
        lambda layer, s, lines: LoraLayer(layer, low_rank(LowRank, layer, s)),
        not_linear,
    ),
    "dora": Kind(
        DoraLayer,
        LOW_RANK,
        lambda m, lines: low_rank_said(m),
        directed_shapes,
        lambda layer, s, lines: DoraLayer(layer, low_rank(Directed, layer, s)),
        not_linear,
    ),
    "ia3": Kind(
        ScaledLayer,
        {"side": Choice(("input", "output")), "size": COUNT},
        lambda m, lines: {"side": m.side, "size": len(m.insert.values)},
        lambda layer, s: {"values": (s["size"],)},
        lambda layer, s, lines: ScaledLayer(layer, Vector(s["size"], 1.0), s["side"]),
        vector_unfit,
    ),
    "bitfit": Kind(
        ShiftedLayer,
        {"size": COUNT},
        lambda m, lines: {"size": len(m.insert.values)},
        lambda layer, s: {"values": (s["size"],)},
        lambda layer, s, lines: ShiftedLayer(layer, Vector(s["size"], 0.0)),
        bias_unfit,
    ),
    "prefix": Kind(
        Prefixed,
        {"length": COUNT, "heads": COUNT, "size": COUNT},
        lambda m, lines: prefix_said(m),
        lambda layer, s: {"states": (2, s["length"], s["heads"], s["size"])},
        lambda layer, s, lines: Prefixed(
            layer, Prefix(torch.empty(2, s["length"], s["heads"], s["size"]))
        ),
        prefix_unfit,
    ),
    "prompt": Kind(
        Prompted,
        {"inside": BOOLEAN, "length": COUNT, "width": COUNT},
        lambda m, lines: {"inside": m.inside, **prompt_said(m)},
        prompt_shapes,
        lambda layer, s, lines: Prompted(layer, prompt(s), inside=s["inside"]),
    ),
    "without_prompt": Kind(
        WithoutPrompt,
        {"length": COUNT},
        lambda m, lines: {"length": m.length},
        no_tensors,
        lambda layer, s, lines: WithoutPrompt(layer, s["length"]),
    ),
    "appended_prompt": Kind(
        Appended,
        {"length": COUNT, "width": COUNT},
        lambda m, lines: prompt_said(m),
        prompt_shapes,
        lambda layer, s, lines: Appended(layer, prompt(s)),
    ),
}
