"""Parameters that several quantization stages have, and what `exclude` means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.kernels import WEIGHT_MAX
from petra.core.pipeline import Value
from petra.model.kinds import INTEGER_KERNELS, Convolution
from petra.model.surgery import input_layers, is_under, output_layers
from petra.space.declare import FromModel, has, where
from petra.space.domains import Choice, Integer, Text
from petra.space.outline import ModelOutline
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, call, named_outputs

EXCLUDE_ENDS = Choice(("none", "first", "last", "ends"))
EXCLUDE = where(has("convolution"), Choice((*EXCLUDE_ENDS.values, "convolutions")), "convolutions")
EXCLUDE_LIMITS = Text(
    "none", "none, first, last, ends, convolutions, or module paths separated by commas"
)

KEEP_FLOAT, KEEP_LIMITS = Choice((0, 1, 2, 4)), Integer(0, 10_000)
KEEP_DOC = "layers that cost most when quantized, kept in float"

STORAGE = Choice(("float", "int8"))
EMBEDDINGS = where(has("embedding"), STORAGE, "int8")
RECURRENT = Choice(("float", "int8", "dynamic"))
RECURRENT_DOC = (
    "how weights of recurrent layers are stored; dynamic computes in integers, where the runtime"
    " has a kernel for the layer (ONNX Runtime for the LSTM), and is int8 elsewhere"
)
EMBEDDINGS_DOC = "how embedding tables are stored"

CODES = Choice((WEIGHT_MAX,))
CODES_DOC = (
    "largest weight code: 64 is right on every CPU, 127 on those with VNNI or dot products, 7 is 4"
    " bits"
)


def precise_outputs(task: Task) -> Mapping[str, Value]:
    """What stages that round prefer on a task: of values, the layers that put them out in float."""
    return {"exclude": "last"} if task.judged_by_error else {}


def precise_ends(task: Task) -> Mapping[str, Value]:
    """The same for stages that give inputs a fixed range, too: those of values have tails, in which
    one range makes steps that are coarse for all others.
    """
    return {"exclude": "ends"} if task.judged_by_error else {}


def recurrent_formats(default: str) -> FromModel:
    """Formats for recurrent layers, as far as the model has such; the default where it has none."""

    def of(model: ModelOutline) -> Choice:
        if not model.of_role("recurrent"):
            return Choice((default,))
        return RECURRENT if model.of_kind("LSTM") else Choice(("float", "int8"))

    return FromModel(of, RECURRENT)


def excluded_layers(model: nn.Module, exclude: str, example: Inputs) -> frozenset[str]:
    """Module paths meant by `exclude`: "none", "first", "last", "ends" (both), "convolutions" (all
    of them), or paths separated by commas.

    First are the layers that read the inputs, last those that the outputs come from, both found on
    `example` (`input_layers`, `output_layers`); where they cannot be followed, the first and the
    last defined of convolution and linear layers. Costs a forward pass for each. Raises
    StageRefused where there is no convolution to exclude.
    """
    if exclude == "convolutions":
        found = [name for name, m in model.named_modules() if isinstance(m, Convolution)]
        if not found:
            raise StageRefused("convolutions are to be excluded, but the model has none")
        return frozenset(found)
    if exclude not in EXCLUDE_ENDS.values:
        return frozenset(part.strip() for part in exclude.split(","))
    layers = _layers(model)

    def run(m: nn.Module) -> list[Tensor]:
        return list(named_outputs(call(m, example)).values())

    first: Iterable[str] = ()
    last: Iterable[str] = ()
    try:
        if exclude in ("first", "ends"):
            first = input_layers(model, run) or layers[:1]
        if exclude in ("last", "ends"):
            last = output_layers(model, run) or layers[-1:]
    except RuntimeError:  # it writes to its weights while it runs, which gradients forbid
        first = layers[:1] if exclude in ("first", "ends") else ()
        last = layers[-1:] if exclude in ("last", "ends") else ()
    return frozenset([*first, *last])


def _layers(model: nn.Module) -> list[str]:
    """Paths of convolution and linear layers, in order of definition."""
    return [name for name, module in model.named_modules() if isinstance(module, INTEGER_KERNELS)]


def check_excluded(model: nn.Module, exclude: frozenset[str]) -> None:
    """Raise StageRefused unless every name in `exclude` is a module or the beginning of a path."""
    paths = {name for name, _ in model.named_modules()}
    for name in sorted(exclude):
        if not any(is_under(path, frozenset({name})) for path in paths):
            raise StageRefused("is to be excluded, but the model has no such module", layer=name)


def check_some_are_left(model: nn.Module, exclude: frozenset[str], keep_float: int) -> None:
    """Raise StageRefused where all layers are excluded but for `keep_float`, or fewer."""
    left = [name for name in _layers(model) if not is_under(name, exclude)]
    if len(left) <= keep_float:
        raise StageRefused(f"{keep_float} of {len(left)} layers are to stay in float")
