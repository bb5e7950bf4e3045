"""Why a layer is in float: what the stage that quantized says of it, what the file asks for, and
what the runtime made of that.
"""

from __future__ import annotations

from collections.abc import Sequence

from petra.core.profile import CODES, DYNAMIC, INT8, Border, FileLayer, Profile, Ran
from petra.explaining.families import BORDER, family

IN_INTEGERS = (INT8, DYNAMIC)

PRODUCT = "a product of two activations: there is no weight to quantize"
DECODED = "its weights are stored as codes, and decoded for float arithmetic"
UNSAID = "its weights are float in the file; the trace names no reason for this layer"
FILE_SAYS = "its weights are float in the file"


def reason_for_float(layer: FileLayer, ran: Ran | None, said: str, *, traced: bool) -> str:
    """Why a layer of a file that was quantized computes in float, '' where it does not. `said` is
    what the trace says of it, `traced` whether there is one.
    """
    precision = ran.precision if ran is not None else ""
    if precision in IN_INTEGERS or (not precision and layer.precision in IN_INTEGERS):
        return ""
    if layer.precision in IN_INTEGERS:
        return not_fused(layer, precision)
    if not layer.weights:
        return PRODUCT
    if layer.precision == CODES:
        return DECODED
    if said:
        return said
    return UNSAID if traced else FILE_SAYS


def not_fused(layer: FileLayer, precision: str) -> str:
    """Why the runtime computes in float what the file has between dequantize and quantize."""
    asked = f"the file asks for int8, and the runtime computes in {precision}"
    if not layer.closed:
        return f"{asked}: the layer's result is not quantized, so the pair is open at its end"
    return f"{asked}: it has no integer kernel for this {layer.kind} with these types or sizes"


def unfused(profile: Profile, labels: Sequence[str]) -> list[str]:
    """Quantize and dequantize operators of the file that still run at a layer, or between layers,
    with their time; borders of the model itself are not among them.
    """
    borders = {border.node: border for border in profile.file.borders}
    found = []
    for ran in profile.operators:
        border = borders.get(ran.node) if ran.node is not None else None
        if border is None or family(ran.kind) != BORDER or border.where in ("input", "output"):
            continue
        found.append(f"{ran.kind} {_place(border, labels)}: {1e3 * ran.ms:.1f} us")
    return found


def _place(border: Border, labels: Sequence[str]) -> str:
    if border.layer is not None and border.layer < len(labels):
        what = "of the weights of" if border.where == "weights" else "before"
        return f"{what} {labels[border.layer]}"
    return "of stored weights" if border.where == "weights" else "between layers"
