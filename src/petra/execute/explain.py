"""Where a candidate's error comes from: the layer whose output it first shows in, and the range
that does not hold what passes. For tasks that are judged by their error, and candidates whose error
rose by more than `RISE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from petra.core.trial import EXPLAINED, StageTrace
from petra.execute.activations import Passed, Quantizer, passed_through, span
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, Outputs, call, main_output, map_inputs, predictions

RISE = 0.1
"""Of the untouched model's error: what rose by more is explained."""

ITEMS, CHOSEN = 128, 16
"""Validation items that errors are measured on; those of them whose predictions moved most, which
layers are compared on.
"""

_SHOWN = 8  # layers that are kept
_ROUNDING = 0.02  # a relative error that rounding to 8 bits makes anyway


@dataclass(frozen=True)
class Layer:
    """What became of a layer's output: its relative error against the untouched model's, None where
    it has another width, infinite where it is not finite; the values that it spans, there and here;
    and how its input is quantized.
    """

    path: str
    error: float | None
    before: tuple[float, float]
    after: tuple[float, float]
    quantizer: Quantizer | None = None

    @staticmethod
    def of(path: str, theirs: Passed, ours: Passed) -> Layer:
        error = None
        if theirs.output.shape == ours.output.shape:
            size = float(theirs.output.norm()) or 1.0
            error = _or_infinite(float((ours.output - theirs.output).norm()) / size)
        return Layer(path, error, span(theirs.output), span(ours.output), ours.quantizer)

    def __str__(self) -> str:
        """What is odd about it."""
        held = self.quantizer
        if held and held.beyond > 0:
            return (
                f"{held.beyond:.1%} of its inputs lie beyond the range {_shown(held.range)} that"
                f" they are rounded in: they reach {_shown(held.reached)}"
            )
        if held:
            return f"its inputs are rounded to steps of {held.step:.3g} in {_shown(held.range)}"
        return f"it puts out {_shown(self.after)}, in the untouched model {_shown(self.before)}"

    def as_dict(self) -> dict[str, object]:
        """As JSON."""
        found: dict[str, object] = {"path": self.path, "error": _plain(self.error)}
        found |= {"before": list(map(_plain, self.before)), "after": list(map(_plain, self.after))}
        if held := self.quantizer:
            found |= {
                "range": list(map(_plain, held.range)),
                "reached": list(map(_plain, held.reached)),
                "beyond": _plain(held.beyond),
            }
        return found


def explained(
    untouched: nn.Module, model: nn.Module, task: Task, trace: Sequence[StageTrace]
) -> tuple[StageTrace, ...]:
    """The trace of the stages that made `model` of the `untouched` one, in its last stage's details
    why the error rose; as it is, where it did not, and for tasks that are judged otherwise.

    Costs a forward pass of both models over `ITEMS` items, and where the error rose one over
    `CHOSEN`, of a quantized graph after tracing the untouched model. Never raises: an explanation
    that fails is none.
    """
    if not trace or not task.judged_by_error:
        return tuple(trace)
    try:
        with torch.no_grad():
            found = _explanation(untouched.eval(), model, task)
    except Exception as error:  # noqa: BLE001 - of any kind, in code that is not ours
        found = {"words": f"could not be explained: {type(error).__name__}: {error}"[:500]}
    if not found:
        return tuple(trace)
    last = trace[-1]
    return (*trace[:-1], replace(last, details={**last.details, EXPLAINED: found}))


def _explanation(untouched: nn.Module, model: nn.Module, task: Task) -> dict[str, object]:
    inputs, targets = next(iter(task.val.batches(ITEMS)))
    before, after = (
        predictions(call(m, map_inputs(inputs, torch.clone))) for m in (untouched, model)
    )
    errors = [task.error_of(outputs, targets) for outputs in (before, after)]
    rise = _rise(*errors)
    if rise <= RISE:
        return {}
    old, new = (1 - error if task.maximize else error for error in errors)
    few = map_inputs(inputs, _of(_most_moved(before, after)))
    layers = compared(untouched, model, few)
    first = where_it_begins(layers)
    of = "its error " if task.maximize else ""
    by = f" ({of}{rise:+.0%})" if math.isfinite(rise) else ""
    said = f"{task.metric} {old:.4g} -> {new:.4g}{by} on {len(targets)} validation items"
    return {
        "words": f"{said}: {_in_words(layers, first)}",
        "before": _plain(old),
        "after": _plain(new),
        "layer": layers[first].path if layers else "",
        "layers": [layer.as_dict() for layer in _telling(layers, first)],
    }


def _rise(before: float, after: float) -> float:
    """Of an error, as a share of what it was: infinite where it is undefined since, 0 where it has
    always been.
    """
    if not math.isfinite(before):
        return 0.0
    return _or_infinite((after - before) / (abs(before) or 1.0))


def _or_infinite(x: float) -> float:
    return math.inf if math.isnan(x) else x


def compared(untouched: nn.Module, model: nn.Module, inputs: Inputs) -> list[Layer]:
    """The layers that both models have, in the order in which the untouched one runs them."""
    theirs, ours = passed_through(untouched, model, inputs)
    return [Layer.of(path, theirs[path], ours[path]) for path in theirs if path in ours]


def where_it_begins(layers: Sequence[Layer]) -> int:
    """Place of the layer at which the relative error jumps most over the largest before it; of
    errors within rounding of one another, the first.
    """
    best, place, largest = -math.inf, 0, 0.0
    for i, layer in enumerate(layers):
        error = layer.error or 0.0
        jump = (error + _ROUNDING) / (largest + _ROUNDING)  # NaN after what is infinite
        if jump > best * (1 + 1e-6):
            best, place = jump, i
        largest = max(largest, error)
    return place


def _in_words(layers: Sequence[Layer], first: int) -> str:
    if not layers:
        return "no layer can be compared with one of the untouched model"
    layer, others = layers[first], [one.error for one in layers[:first] if one.error is not None]
    where = f"it begins in layer {layer.path!r}" if layer.path else "it begins in the model itself"
    if layer.error is None:
        return f"{where}, which has another width than in the untouched model: {layer}"
    earlier = f", at most {max(others):.2g} before it" if others else ""
    return f"{where} (relative error {layer.error:.2g}{earlier}): {layer}"


def _telling(layers: Sequence[Layer], first: int) -> list[Layer]:
    """The one where it begins and those with the largest errors, in order."""
    largest = sorted(range(len(layers)), key=lambda i: -(layers[i].error or 0.0))
    places = sorted({first, *largest[: _SHOWN - 1]} if layers else set())
    return [layers[i] for i in places]


def _most_moved(before: Outputs, after: Outputs) -> Tensor:
    """Places of the items whose predictions moved most."""
    moved = (main_output(after).double() - main_output(before).double()).abs()
    far = moved.nan_to_num(nan=math.inf).reshape(len(moved), -1).sum(1)
    return far.topk(min(CHOSEN, len(far))).indices


def _of(index: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda t: t[index]


def _shown(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.3g}, {ends[1]:.3g}]"


def _plain(value: float | None) -> float | str | None:
    """A number with four digits that JSON has a word for."""
    if value is None:
        return None
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)
