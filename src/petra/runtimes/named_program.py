"""A model as the program that files are written from, whose outputs have names; and the operator
that an exporter cannot write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from petra.core.interface import Interface
from petra.model.aten.rewrites import global_average_as_mean
from petra.runtimes.free_sizes import free_axes
from petra.runtimes.tracing import capture
from petra.tasks.inputs import Inputs, call, named_outputs

_OPERATOR = re.compile(
    r"op='([\w:.]+)'|\b((?:aten|prims|torchvision|quantized_decomposed)[.:]+\w+(?:\.\w+)?)"
)


def named_program(
    model: nn.Module, example: Inputs, interface: Interface | None = None
) -> tuple[torch.export.ExportedProgram, list[str]]:
    """Capture a model in evaluation mode, in the precision it has, as a program of one argument,
    its inputs; it returns its named outputs as a flat tuple. `example` is of two items at least;
    the axes that `interface` leaves free are free, by default the batch. Raises ExportError when it
    cannot be.
    """
    names: list[str] = []

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.training = False
            self.model = model

        def forward(self, inputs: Inputs) -> tuple[torch.Tensor, ...]:
            outputs = named_outputs(call(self.model, inputs))
            names[:] = outputs
            return tuple(outputs.values())

    # The exporter writes attention out in its plain form, whose result has another memory layout
    # than fused kernels'.
    with _evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        free = free_axes(example, interface)
        program = capture(Named(), (example,), free=free, inside=model)
    global_average_as_mean(program.graph_module.graph)
    return program, names


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and back afterwards.

    A quantized graph forbids calling `eval()`.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def blamed_operator(error: BaseException) -> str:
    """The operator an exporter error chain blames, such as 'aten.foo.default'; '' when it names
    none.
    """
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    for link in reversed(chain):
        if found := _OPERATOR.search(str(link)):
            return (found.group(1) or found.group(2)).replace("::", ".")
    return ""
