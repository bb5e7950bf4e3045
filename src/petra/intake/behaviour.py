"""How the model behaves in evaluation mode: item by item, a function of its inputs, and finite."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petra.core.errors import DataError, PetraError
from petra.intake.watch import Draws, Function, layer_name, watching
from petra.runtimes.verify import has_fixed_infinities
from petra.tasks.inputs import Inputs, call, map_inputs, named, prediction

OTHER_INPUTS = "the loader must yield what model(...) takes"
ANY_SIZE = "it took a batch of two items: batches of any size must work alike"
MANY = 257  # one more than a batch of predictions: its last item is alone in the next
SINGLY = 8  # items that are run one by one
NOISE = 1e-4  # rms difference over the spread, the most that two equal passes make


@dataclass(frozen=True)
class Probe:
    """Items it is tried on: `MANY` of the split called `name`, repeated where it has fewer."""

    name: str
    inputs: Inputs
    items: int

    def take(self, n: int) -> Inputs:
        return map_inputs(self.inputs, lambda t: t[:n].clone())


def run(model: nn.Module, inputs: Inputs, *, where: str, hint: str = OTHER_INPUTS) -> Tensor:
    """The model's prediction.

    Raises DataError, naming the layer, for whatever the model raises on these inputs.
    """
    with watching(model) as watch:
        try:
            return prediction(call(model, inputs)).float()
        except PetraError:
            raise
        except RecursionError as error:
            raise DataError(
                f"{watch.layer}: the model is nested too deeply to run", hint=_FLATTEN
            ) from error
        except Exception as error:
            shown = {key: (tuple(t.shape), str(t.dtype)[6:]) for key, t in named(inputs).items()}
            said = (str(error).strip().splitlines() or [""])[0]
            raise DataError(
                f"{where}: the model does not take these inputs {shown}: {watch.layer} raised "
                f"{type(error).__name__}: {said}",
                hint=_hint(inputs, error) or hint,
            ) from error


_FLATTEN = "put the layers side by side in one nn.Sequential instead of inside one another"


def _hint(inputs: Inputs, error: Exception) -> str:
    """What to do about an error whose text says its cause, else nothing."""
    said = str(error)
    if isinstance(error, TypeError) and isinstance(inputs, dict):
        return (
            f"inputs are passed by name, as {', '.join(inputs)}; the names must be those of the"
            " model's forward"
        )
    if isinstance(error, TypeError) and "argument" in said:
        return (
            "inputs are passed by position; a dict of inputs is passed by name: yield ({'x': x},"
            " target)"
        )
    whole = [key for key, t in named(inputs).items() if not t.is_floating_point()]
    usual = (torch.int64, torch.int32, torch.bool)
    small = [key for key in whole if named(inputs)[key].dtype not in usual]
    if small and "'indices'" in said:
        return f"{small[0]} is {named(inputs)[small[0]].dtype}: give categories as int64"
    if whole and ("dtype" in said or "must be" in said or "not implemented for" in said):
        return (
            f"{whole[0]} is {named(inputs)[whole[0]].dtype}: where the model computes with it, give"
            " it as float"
        )
    if "index out of range" in said:
        return "the inputs hold numbers beyond a table: they must lie in 0..num_embeddings - 1"
    return ""


def check_repeatable(model: nn.Module, probe: Probe) -> None:
    """Raise DataError unless two equal passes are equal and leave inputs and buffers alone."""
    where, inputs = f"{probe.name} split", probe.take(SINGLY)
    # A first pass may fill what the model keeps for later ones.
    run(model, map_inputs(inputs, torch.clone), where=where, hint=ANY_SIZE)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    given = map_inputs(inputs, torch.clone)
    first = run(model, given, where=where)
    _check_inputs_kept(given, inputs)
    after = dict(model.named_buffers())
    changed = next((name for name, old in before.items() if not _same(old, after.get(name))), None)
    if changed is not None:
        raise DataError(
            f"the model's buffer {changed!r} changes while it runs in evaluation mode",
            hint="change it only while training: if self.training: ...",
        )
    second = run(model, map_inputs(inputs, torch.clone), where=where)
    if distance(first, second) > NOISE:
        drawn = _what_draws(model, inputs)
        raise DataError(
            f"the model is random in evaluation mode: {drawn or 'two equal passes differ'}",
            hint=(
                "draw only while training: functional.dropout(x, p, training=self.training), or an"
                " nn.Dropout layer"
                if drawn
                else (
                    "the same inputs must give the same outputs: keep no state, read no clock, draw"
                    " no numbers"
                )
            ),
        )


def _what_draws(model: nn.Module, inputs: Inputs) -> str:
    """Functions of torch's that draw random numbers, and where; "" where there are none."""
    with watching(model) as watch, Function() as function, Draws(watch, function) as draws:
        call(model, map_inputs(inputs, torch.clone))
    on = [
        layer_name(model, path)
        for path, m in model.named_modules()
        if isinstance(m, nn.modules.dropout._DropoutNd) and m.training
    ]
    return ", ".join(dict.fromkeys([*draws.found[:3], *on[:3]]))


def _check_inputs_kept(given: Inputs, inputs: Inputs) -> None:
    for name, tensor in named(inputs).items():
        if not _same(named(given)[name], tensor):
            raise DataError(
                f"the model changes its input {name!r} in place",
                hint="let forward begin with a copy: x = x.clone()",
            )


def check_finite(predictions: Tensor, probe: Probe, model: nn.Module) -> None:
    """Raise DataError unless outputs are finite, or infinite at the same places in every item."""
    if has_fixed_infinities(predictions.numpy()):
        return
    odd = (~predictions.isfinite()).reshape(len(predictions), -1)
    item = int(odd.any(1).nonzero()[0]) % probe.items
    one = map_inputs(probe.inputs, lambda t: t[item : item + 1].clone())
    bad = [
        name for name, t in named(one).items() if t.is_floating_point() and not t.isfinite().all()
    ]
    if bad:
        raise not_finite_input(one, f"{probe.name} split, item {item}")
    first: list[str] = []

    def seen(path: str, taken: list[Tensor], given: list[Tensor]) -> None:
        if (
            not first
            and all(t.isfinite().all() for t in taken)
            and not all(t.isfinite().all() for t in given)
        ):
            first.append(layer_name(model, path))

    with watching(model, seen):
        call(model, one)
    kind = "NaN" if predictions.isnan().any() else "infinity"
    raise DataError(
        f"{probe.name} split, item {item}: the model returns {kind} for finite inputs, first in "
        f"{first[0] if first else 'the model itself'}",
        hint=(
            "mend the weights or the arithmetic there; excluded classes may have minus infinity,"
            " for all items"
        ),
    )


def not_finite_input(one: Inputs, where: str) -> DataError:
    """The error for an item, a batch of one, whose inputs and prediction are not finite."""
    for name, tensor in named(one).items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            place = tuple((~tensor.isfinite()).nonzero()[0, 1:].tolist())
            kind = "NaN" if tensor.isnan().any() else "infinity"
            return DataError(
                f"{where}: {kind} in the inputs ({name}{list(place) if place else ''})",
                hint="drop such items or fill the gaps: x.nan_to_num(0.0)",
            )
    return DataError(
        f"{where}: the model returns NaN or infinity for finite inputs",
        hint="mend its weights or its arithmetic",
    )


def _same(a: Tensor, b: Tensor | None) -> bool:
    if b is None or a.shape != b.shape:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())


def distance(a: Tensor, b: Tensor, spread: Tensor | None = None) -> float:
    """Root mean square of the difference over the spread (of `a`, or of what is given), where both
    are finite."""
    if a.shape != b.shape:
        return float("inf")
    finite = a.isfinite() & b.isfinite()
    if not finite.any():
        return 0.0
    x, y = a[finite].double(), b[finite].double()
    ruler = x if spread is None else spread[spread.isfinite()].double()
    size = max(float(ruler.std(correction=0)), 1e-3 * float(ruler.square().mean().sqrt())) or 1.0
    return float((x - y).square().mean().sqrt()) / size
