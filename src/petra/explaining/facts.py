"""Figures of a candidate that rules of advice look at, all of them measured or counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from petra.core.profile import CODES, Profiled
from petra.core.trial import Trial
from petra.explaining.families import (
    BORDER,
    COMPUTE,
    LAYOUT,
    NORM,
    PRODUCT,
    SOFTMAX,
    family,
)
from petra.explaining.reasons import IN_INTEGERS
from petra.explaining.record import FamilyRow, LayerRow

DOT_PRODUCTS = ("AVX-512 VNNI", "AVX-VNNI", "AMX int8", "Arm dot product", "Arm i8mm")
"""Instruction sets with products of 8-bit integers that do not saturate."""


@dataclass(frozen=True)
class Facts:
    """Shares are of the time of all operators, in 0..1; times are of one call; factors are over
    the untouched model's. None: not known. `depthwise_factor` is that of the depthwise
    convolutions in int8, `compute_factor` that of convolutions, products and recurrent layers.
    `unfused` layers ask for integers and run in float. `mean_us` is what an untraced call takes for
    each of its operators.
    """

    runtime: str
    batch: int
    stages: tuple[str, ...]
    dot_products: bool
    ratio: float | None
    operators: int
    base_operators: int | None
    mean_us: float
    call_us: float
    border: float
    layout: float
    attention: float
    int8_layers: int
    float_between: float
    largest_float: str
    depthwise_int8: float
    depthwise_factor: float | None
    compute_factor: float | None
    decoded: float
    unfused: int
    halved: int

    def has(self, *stages: str) -> bool:
        """Whether the pipeline has one of these stages."""
        return any(stage in self.stages for stage in stages)


def facts_of(
    trial: Trial | None,
    measured: Profiled,
    layers: Sequence[LayerRow],
    operators: Sequence[FamilyRow],
) -> Facts | None:
    """The figures; None where the runtime has no profile."""
    mine = measured.mine
    if mine is None or not mine.total_ms:
        return None
    share = {row.family: row.share for row in operators}
    floats = [row for row in layers if row.in_float and row.weights]
    coded = [row for row in layers if not row.in_float]
    between = sum(row.share or 0.0 for row in floats) if coded else 0.0
    largest = max(floats, key=lambda row: row.ms or 0.0, default=None)
    deep = [row for row in coded if row.depthwise]
    return Facts(
        runtime=measured.runtime,
        batch=measured.batch,
        stages=tuple(stage.kind for stage in trial.pipeline) if trial else (),
        dot_products=any(name in DOT_PRODUCTS for name in measured.instruction_sets),
        ratio=measured.ratio,
        operators=len(mine.operators),
        base_operators=len(measured.base.operators) if measured.base else None,
        mean_us=1e3 * measured.mine_ms / len(mine.operators),
        call_us=1e3 * measured.mine_ms,
        border=share.get(BORDER, 0.0),
        layout=share.get(LAYOUT, 0.0),
        attention=share.get(SOFTMAX, 0.0) + share.get(NORM, 0.0) + _products(layers),
        int8_layers=len(coded),
        float_between=between,
        largest_float=largest.label if largest else "",
        depthwise_int8=sum(row.share or 0.0 for row in deep),
        depthwise_factor=_factor(deep),
        compute_factor=_compute_factor(operators),
        decoded=sum(row.share or 0.0 for row in layers if row.asked == CODES),
        unfused=sum(row.asked in IN_INTEGERS and row.in_float for row in layers),
        halved=sum(row.asked in ("float16", "bfloat16") for row in layers),
    )


def _products(layers: Sequence[LayerRow]) -> float:
    """Of products of two activations, as in attention."""
    return sum(
        row.share or 0.0 for row in layers if not row.weights and family(row.kind) == PRODUCT
    )


def _factor(layers: Sequence[LayerRow]) -> float | None:
    both = [(row.ms, row.base_ms) for row in layers if row.ms is not None and row.base_ms]
    base = sum(old for _, old in both if old)
    return sum(new for new, _ in both if new) / base if base else None


def _compute_factor(operators: Sequence[FamilyRow]) -> float | None:
    rows = [row for row in operators if row.family in COMPUTE]
    base = sum(row.base_ms or 0.0 for row in rows)
    return sum(row.ms for row in rows) / base if base else None
