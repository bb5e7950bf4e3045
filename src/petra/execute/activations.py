"""What layers put out in two models on the same inputs, by path, and what quantizers make of what
goes into them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from petra.methods.quantize.calibration import in_order
from petra.methods.quantize.ptq import simplify, trace
from petra.model.aten.graph import calls_weighted_layer, module_path
from petra.model.surgery import tensors_in
from petra.tasks.inputs import Inputs, call

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


@dataclass(frozen=True)
class Quantizer:
    """The range that values are rounded in, the values that reach it, and the share beyond."""

    range: tuple[float, float]
    step: float
    reached: tuple[float, float]
    beyond: float

    @staticmethod
    def of(values: Tensor, scale: float, zero_point: int, least: int, most: int) -> Quantizer:
        low, high = (least - zero_point) * scale, (most - zero_point) * scale
        # Half a step beyond, a value is still rounded to the last code.
        outside = (values < low - scale / 2) | (values > high + scale / 2)
        return Quantizer((low, high), scale, span(values), float(outside.float().mean()))


@dataclass(frozen=True)
class Passed:
    """A layer's output the first time it runs, and where its input is quantized how."""

    output: Tensor
    quantizer: Quantizer | None = None


def span(values: Tensor) -> tuple[float, float]:
    """The least and the largest of some values."""
    low, high = torch.aminmax(values)
    return float(low), float(high)


def passed_through(
    untouched: nn.Module, model: nn.Module, inputs: Inputs
) -> tuple[Mapping[str, Passed], Mapping[str, Passed]]:
    """What passed through the layers of both models, in the order they ran; by path.

    A quantized graph is compared with the graph of the untouched model, both with their norms
    folded into layers: convolutions and linear layers. Otherwise layers are the untouched model's
    modules with parameters of their own, and what stands in their places.
    """
    if not isinstance(model, GraphModule):
        paths = [p for p, m in untouched.named_modules() if [*m.parameters(recurse=False)]]
        return of_modules(untouched, paths, inputs), of_modules(model, paths, inputs)
    reference = trace(untouched, inputs)
    simplify(reference)
    return of_graph(reference, inputs), of_graph(model, inputs)


def of_modules(model: nn.Module, paths: Iterable[str], inputs: Inputs) -> dict[str, Passed]:
    """Of those of the modules at `paths` that `model` has and runs."""
    found: dict[str, Passed] = {}

    def record(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            first = next(iter(tensors_in(output)), None)
            if path not in found and first is not None and first.is_floating_point():
                found[path] = Passed(first.detach().float())

        return hook

    modules = dict(model.named_modules())
    with ExitStack() as hooks:
        for path in paths:
            if path in modules:
                handle = modules[path].register_forward_hook(record(path))
                hooks.callback(handle.remove)
        call(model, inputs)
    return found


def of_graph(graph: GraphModule, inputs: Inputs) -> dict[str, Passed]:
    """Of the weighted layers of an exported graph."""
    recorder = _Recorder(graph)
    recorder.run(*in_order(graph, inputs), enable_io_processing=False)
    return {
        path: Passed(output, recorder.quantizers.get(path))
        for path, output in recorder.outputs.items()
    }


class _Recorder(Interpreter):
    """Runs a graph and keeps what weighted layers put out, and how what goes into them is
    quantized, each the first time.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.outputs: dict[str, Tensor] = {}
        self.quantizers: dict[str, Quantizer] = {}

    def run_node(self, n: Node) -> Any:
        if n.target is _QUANTIZE:
            args, _ = self.fetch_args_kwargs_from_env(n)
            for path in _readers(n):
                self._see(path, Quantizer.of(*args[:5]))
        value = super().run_node(n)
        if n.op == "call_function" and calls_weighted_layer(n):
            self.outputs.setdefault(module_path(n), value.detach().float())
        return value

    def _see(self, path: str, quantizer: Quantizer) -> None:
        """Of several that a value passes on its way to a layer, the one that clips most counts."""
        before = self.quantizers.get(path)
        if before is None or quantizer.beyond > before.beyond:
            self.quantizers[path] = quantizer


def _readers(quantize: Node) -> set[str]:
    """Paths of the weighted layers that a quantized value goes into next."""
    found: set[str] = set()
    todo, seen = list(quantize.users), set(quantize.users)
    while todo:
        node = todo.pop()
        if node.op == "call_function" and calls_weighted_layer(node):
            found.add(module_path(node))
            continue
        new = [user for user in node.users if user not in seen]
        seen.update(new)
        todo.extend(new)
    return found
