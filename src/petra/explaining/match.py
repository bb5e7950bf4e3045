"""Which layer of a file is which: names from a candidate's trace, and the untouched model's layers
beside a candidate's.

Exported files have no names, to be small. A trace lists layers in the order of the graph, and a
file has them in the same order; names are given only where both have as many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from petra.core.profile import CODES, DYNAMIC, INT8, FileContents, FileLayer
from petra.core.trial import StageTrace, Trial
from petra.explaining.families import CONVOLUTION, family

_NO_PRODUCT = re.compile(r"(^|\.|_)(\w*emb\w*|\w*norm\w*|bn\d*|ln\d*)(\.|$)", re.IGNORECASE)
"""Names that layers without products have: they may be in a trace, and are no layers here."""

_IN_ORDER = ("quantize.static", "quantize.qat")
"""Stages whose traces list layers in the order of the graph."""


@dataclass(frozen=True)
class Names:
    """Names of a file's layers by their place, and why the trace says that some are in float."""

    names: Mapping[int, str] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)


def quantizing(trace: Sequence[StageTrace]) -> StageTrace | None:
    """The last stage that quantized, None where none did."""
    found = [one for one in trace if one.stage.startswith("quantize.")]
    return found[-1] if found else None


Order = tuple[str, ...]
"""Names of all layers with weights, in the order of the graph."""


def orders_of(trials: Iterable[Trial]) -> tuple[Order, ...]:
    """The orders that trials of one study tell: those that quantized every layer, and did nothing
    else to the model.
    """
    found = (
        t.trace[0].touched
        for t in trials
        if len(t.trace) == 1 and t.trace[0].stage in _IN_ORDER and not t.trace[0].skipped
    )
    return tuple(dict.fromkeys(found))


def named(
    contents: FileContents, trace: Sequence[StageTrace], orders: Sequence[Order] = ()
) -> Names:
    """Names of the layers: the file's own, else those of the stage that quantized, else those of
    another candidate with as many layers in the one order that is known.
    """
    own = {at: layer.name for at, layer in enumerate(contents.layers) if layer.name}
    stage = quantizing(trace)
    if stage is None:
        weighted = [at for at, layer in enumerate(contents.layers) if layer.weights]
        fitting = [order for order in orders if len(order) == len(weighted)]
        known = dict(zip(weighted, fitting[0], strict=True)) if len(fitting) == 1 else {}
        return Names(own or known)
    coded = [at for at, layer in enumerate(contents.layers) if _coded(layer)]
    floats = [at for at, layer in enumerate(contents.layers) if layer.weights and not _coded(layer)]
    touched = _fitting(stage.touched, len(coded))
    skipped = _fitting(tuple(stage.skipped), len(floats))
    names = dict(zip(coded, touched, strict=False)) | dict(zip(floats, skipped, strict=False))
    reasons = {at: stage.skipped[name] for at, name in zip(floats, skipped, strict=False)}
    by_name = {at: stage.skipped[name] for at, name in own.items() if name in stage.skipped}
    return Names({**names, **own}, {**reasons, **by_name})


def _coded(layer: FileLayer) -> bool:
    return layer.precision in (INT8, DYNAMIC, CODES)


def _fitting(names: Sequence[str], wanted: int) -> Sequence[str]:
    """The names where there are as many as wanted, with or without those that are no products; ()
    otherwise.
    """
    distinct = tuple(dict.fromkeys(name for name in names if name))
    plain = tuple(name for name in distinct if not _NO_PRODUCT.search(name))
    return next((found for found in (distinct, plain) if len(found) == wanted), ())


def side_by_side(mine: FileContents, base: FileContents) -> tuple[dict[int, int], str]:
    """The place of the same layer in the untouched model's file, by place; and why there are none.

    By name where it has them all; else one by one, where both files have the same kinds of layers
    in the same order; else by those names that it has.
    """
    theirs = {layer.name: at for at, layer in enumerate(base.layers) if layer.name}
    by_name = {
        at: theirs[layer.name] for at, layer in enumerate(mine.layers) if layer.name in theirs
    }
    if by_name and len(by_name) == len(mine.layers):
        return by_name, ""
    for products in (True, False):
        ours, old = (
            [
                (at, _signature(layer))
                for at, layer in enumerate(layers)
                if products or layer.weights
            ]
            for layers in (mine.layers, base.layers)
        )
        if ours and [kind for _, kind in ours] == [kind for _, kind in old]:
            return {at: other for (at, _), (other, _) in zip(ours, old, strict=True)}, ""
    if by_name:
        return by_name, ""
    return {}, (
        f"the file has {len(mine.layers)} layers, the untouched model's {len(base.layers)}, or"
        " others: they are compared by operator alone"
    )


def _signature(layer: FileLayer) -> tuple[object, ...]:
    """What a layer and its like in another file share, however many channels they have."""
    kind = family(layer.kind)
    return (kind, layer.weights[2:]) if kind == CONVOLUTION else (kind, bool(layer.weights))
