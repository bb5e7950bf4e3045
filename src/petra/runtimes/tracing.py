"""Capturing a model as a graph with a free batch size, and saying where and why that cannot be
done."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Interpreter, Node
from torch.fx._pytree import tree_flatten_spec
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv
from torch.utils._pytree import tree_map

from petra.core.errors import ExportError, PetraError
from petra.model.aten.graph import module_path
from petra.runtimes.free_sizes import Free
from petra.runtimes.quiet import quiet
from petra.runtimes.recurrences import padded_sequences, whole_recurrences
from petra.tasks.inputs import Inputs
from petra.tasks.passes import one_pass

_TORCH = str(Path(torch.__file__).parent)


def capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    free: Free,
    inside: nn.Module | None = None,
) -> torch.export.ExportedProgram:
    """``torch.export`` of ``model(*args, **kwargs)``, for calls of that form, with the axes `free`
    of every input. The model's own modes of training and of gradients count.

    inside: the model that a person knows, where `model` is one of ours around it. Nothing is
    printed, and the model is left as it was. Raises ExportError, with the place in the person's
    code.
    """
    known = model if inside is None else inside
    kwargs = dict(kwargs or {})
    with (
        quiet(),
        one_pass(model),
        _watching_sizes(known) as fixed,
        _signed(model, args, kwargs) as bound,
    ):
        shapes = tree_map(lambda tensor: dict(free[id(tensor)]), bound)
        try:
            with whole_recurrences(), padded_sequences():
                return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
        except (MemoryError, PetraError):
            raise
        except Exception as error:
            raise _explained(error, known, fixed, lambda: model(*args, **kwargs)) from error


@contextmanager
def _signed(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The arguments as torch.export binds them to the signature of the forward pass, one tuple for
    ``*args``.

    It cannot bind to ``**kwargs``, nor to what a decorator says wrongly; such a model has, inside,
    a signature of what it is called with.
    """
    with suppress(TypeError):
        signature = inspect.signature(model.forward)
        bound = signature.bind(*args, **kwargs).arguments
        if all(
            signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD for name in bound
        ):
            yield dict(bound)
            return
    own = vars(model).get("forward")
    forward = model.forward

    def spelled_out(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    names = [f"input_{i}" for i in range(len(args))]
    positional, keyword = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY
    spelled_out.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *(inspect.Parameter(n, positional) for n in names),
            *(inspect.Parameter(n, keyword) for n in kwargs),
        ]
    )
    vars(model)["forward"] = spelled_out
    try:
        yield dict(zip(names, args, strict=True)) | kwargs
    finally:
        if own is None:
            del vars(model)["forward"]
        else:
            vars(model)["forward"] = own


@dataclass(frozen=True)
class Place:
    """Where in a person's code something happened: the innermost layer, and the line outside
    torch."""

    layer: str
    line: str

    def __str__(self) -> str:
        return (f" in layer {self.layer!r}" if self.layer else "") + (
            f", {self.line}" if self.line else ""
        )


def _explained(
    error: Exception, model: nn.Module, fixed: list[Place], run: Callable[[], object]
) -> ExportError:
    said = summary(error)
    if "specialized it to be a constant" in str(error) or "Constraints violated" in str(error):
        return _fixed_size(str(error), model, str(fixed[0]) if fixed else "")
    place = _place_of(error, model)
    if isinstance(error, GuardOnDataDependentSymNode):
        return ExportError(
            f"the model cannot be traced: its forward pass goes by the values of a tensor{place};"
            f" torch says: {said}",
            hint=(
                "let tensors decide: torch.where or a mask instead of if; no int(), float(), bool()"
                " or len() of computed values; or move it out of the model, into the data"
            ),
        )
    try:
        with torch.no_grad():
            run()
    except Exception as own:  # noqa: BLE001 - the same
        return itself_fails(own, model)
    return ExportError(
        f"the model cannot be traced{place}; torch says: {type(error).__name__}: {said}",
        hint=(
            "while a model is traced its inputs are symbols: torch operations only, no NumPy and no"
            " Python numbers"
        ),
    )


def _fixed_size(said: str, model: nn.Module, place: str) -> ExportError:
    """A free size becomes a number: that of the batch, the first axis, or of the length."""
    batch = "size()[0]" in said or not re.search(r"size\(\)\[\d+\]", said)
    hint = (
        "take the size from the input (x.shape[0], not len(x)), -1 in view and reshape;"
        " loop over no items"
    )
    cell = next((m for m in model.modules() if isinstance(m, nn.RNNCellBase)), None)
    if cell and not batch:
        hint = (
            f"a loop over {type(cell).__name__} is written out step by step when it is traced:"
            " nn.LSTM, nn.GRU and nn.RNN stay whole"
        )
    return ExportError(
        f"the model cannot be traced with a free {'batch size' if batch else 'length'}: it fixes"
        f" the size{place}",
        hint=hint,
    )


def itself_fails(error: Exception, model: nn.Module) -> ExportError:
    """What to say of an error that the model raises without being traced."""
    return ExportError(
        f"the model itself fails{_place_of(error, model)}: {type(error).__name__}:"
        f" {summary(error)}",
        hint="it must run on the example inputs in evaluation mode before it can be traced",
    )


def summary(error: BaseException) -> str:
    """The first line of what an error says, short enough to quote; never a graph."""
    line = next(
        (line.strip() for line in str(error).splitlines() if line.strip()), "no more is known"
    )
    line = line.partition(" (unhinted:")[0].partition(" For more information, run with TORCH_LOGS")[
        0
    ]
    return line if len(line) <= 200 else f"{line[:199]}…"


# -- places ----------------------------------------------------------------------------------------


def _place_of(error: BaseException, model: nn.Module) -> Place:
    """Where an error arose; of a chain of errors, the first."""
    current: BaseException | None = error
    found = Place("", "")
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        place = _place([(f, n) for f, n in traceback.walk_tb(current.__traceback__)], model)
        found = place if place.line or place.layer else found
        current = current.__cause__ or current.__context__
    return found


def _place(frames: list[tuple[FrameType, int]], model: nn.Module) -> Place:
    """The place that a stack, outermost frame first, has reached inside `model`.

    The line is in a file in which one of the running layers is written: not in a library that it
    calls.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    layer = line = ""
    files: set[str] = set()
    for frame, number in frames:
        code = frame.f_code
        own = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(own, nn.Module) and id(own) in paths and _is_method(code.co_name, own):
            layer = paths[id(own)]
            files.add(code.co_filename)
        if code.co_filename in files and not code.co_filename.startswith((_TORCH, "<")):
            line = _quoted(code.co_filename, number)
    return Place(layer, line)


def failing_place(graph: nn.Module, inputs: Inputs) -> Place | str:
    """Where, in the code that `graph` was traced from, it fails on `inputs`; '' where it does not,
    or is no graph."""
    if not isinstance(graph, GraphModule):
        return ""
    watched = _Watched(graph)
    args = inputs if isinstance(inputs, tuple) else () if isinstance(inputs, dict) else (inputs,)
    with quiet(), suppress(Exception), torch.no_grad():
        watched.run(
            *tree_flatten_spec((args, inputs if isinstance(inputs, dict) else {}), graph._in_spec)
        )
        return ""
    node = watched.current
    if node is None:
        return ""
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.stack_trace or "")
    own = [(file, int(number)) for file, number in lines if not file.startswith((_TORCH, "<"))]
    return Place(module_path(node), _quoted(*own[-1]) if own else "")


class _Watched(Interpreter):
    """Runs a graph and knows where it is."""

    current: Node | None = None

    def run_node(self, n: Node) -> Any:
        self.current = n
        return super().run_node(n)


def _quoted(file: str, number: int) -> str:
    text = linecache.getline(file, number).strip()
    return f"{Path(file).name}:{number}" + (f" `{text[:100]}`" if text else "")


def _is_method(name: str, module: nn.Module) -> bool:
    return any(name in vars(cls) for cls in type(module).__mro__)


@contextmanager
def _watching_sizes(model: nn.Module) -> Iterator[list[Place]]:
    """Places where a free size becomes a number, in order, which torch only mentions when all is
    over."""
    found: list[Place] = []
    original: Any = ShapeEnv._set_replacement

    def watched(env: ShapeEnv, symbol: Any, value: Any, message: str) -> None:
        if getattr(value, "is_Integer", False):
            stack = list(traceback.walk_stack(sys._getframe(1)))[::-1]
            place = _place(stack, model)
            if place.line:
                found.append(place)
        original(env, symbol, value, message)

    ShapeEnv._set_replacement = watched  # type: ignore[assignment, method-assign]
    try:
        yield found
    finally:
        ShapeEnv._set_replacement = original  # type: ignore[method-assign]
