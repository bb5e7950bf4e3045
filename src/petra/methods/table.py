"""The table of stages. A new method is one new file and one line here.

To know their names, torch is not loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from petra.core.announced import subclass_of
from petra.core.registry import Registry

if TYPE_CHECKING:
    from petra.methods.base import Stage

STAGES: Registry[type[Stage]] = Registry(
    "stage",
    {
        "tune": "petra.methods.tune.tune:Tune",
        "adapt": "petra.methods.adapt.stage:Adapt",
        "distill": "petra.methods.distill.distill:Distill",
        "prune.depth": "petra.methods.prune.depth:DepthPrune",
        "prune.heads": "petra.methods.prune.heads:HeadPrune",
        "prune.recurrent": "petra.methods.prune.recurrent:RecurrentPrune",
        "prune.structured": "petra.methods.prune.structured:StructuredPrune",
        "prune.unstructured": "petra.methods.prune.unstructured:UnstructuredPrune",
        "lowrank.svd": "petra.methods.lowrank.svd:SVDDecompose",
        "lowrank.cur": "petra.methods.lowrank.cur:CURDecompose",
        "lowrank.tucker": "petra.methods.lowrank.tucker:TuckerDecompose",
        "repair.reconstruct": "petra.methods.repair.reconstruct:Reconstruct",
        "repair.batchnorm": "petra.methods.repair.batchnorm:EstimateBatchNorm",
        "quantize.static": "petra.methods.quantize.static:StaticQuantize",
        "quantize.qat": "petra.methods.quantize.qat:QuantizationAwareTrain",
        "quantize.dynamic": "petra.methods.quantize.dynamic:DynamicQuantize",
        "quantize.half": "petra.methods.quantize.half:HalfPrecision",
        "quantize.weights": "petra.methods.quantize.weights:WeightQuantize",
    },
    group="petra.stages",
    check=subclass_of("petra.methods.base:Stage"),
)
