"""The table of stages. A new method is one new file and one line here."""

from __future__ import annotations

from petra.core.registry import Registry
from petra.methods.base import Stage

STAGES: Registry[type[Stage]] = Registry(
    "stage",
    {
        "tune": "petra.methods.tune.tune:Tune",
        "distill": "petra.methods.distill.distill:Distill",
        "prune.depth": "petra.methods.prune.depth:DepthPrune",
        "prune.structured": "petra.methods.prune.structured:StructuredPrune",
        "lowrank.svd": "petra.methods.lowrank.svd:SVDDecompose",
        "repair.reconstruct": "petra.methods.repair.reconstruct:Reconstruct",
        "quantize.static": "petra.methods.quantize.static:StaticQuantize",
    },
)
