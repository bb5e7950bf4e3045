"""Taking hidden units out of a recurrent layer: out of all gates, and of the layers that read them.

A unit has one number in all layers and directions of a stack, and goes from all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.channels.breakage import BREAKAGE, breakage_in_words, outputs_of
from petra.model.channels.cut import disagreement
from petra.model.channels.hidden import Reader, columns
from petra.model.copies.copying import copy_model
from petra.model.surgery import evaluating, has_derived_weight, shared_weights
from petra.tasks.inputs import Inputs


def objection(model: nn.Module, path: str, readers: Sequence[Reader]) -> str:
    """Why units cannot go, as far as the layers tell; '' when they may."""
    shared = shared_weights(model)
    for name in (path, *(reader.path for reader in readers)):
        module = model.get_submodule(name)
        if name in shared:
            return f"{name!r} shares a weight with {', '.join(map(repr, shared[name]))}"
        derived = module._forward_pre_hooks or "parametrizations" in module._modules
        if derived or has_derived_weight(module):
            return f"the weight of {name!r} is computed from other parameters"
    return ""


def of_units(
    model: nn.Module,
    path: str,
    readers: Sequence[Reader],
    elements: Callable[[str, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """(hidden,) sums over the weights that make each unit, in all gates, layers and directions, and
    over those that read it elsewhere (as Fang et al. 2023, "DepGraph", group them).

    elements: what each weight counts, from a parameter's name and value, in its shape.
    """
    layer: Any = model.get_submodule(path)
    hidden = int(layer.hidden_size)
    made, read = (torch.zeros(hidden, dtype=torch.float64) for _ in range(2))
    for name, _, weight in _weights(layer):
        counts = elements(f"{path}.{name}", weight.detach()).double().cpu()
        made += counts.reshape(-1, hidden, *weight.shape[1:]).movedim(1, 0).flatten(1).sum(1)
    for reader in readers:
        some = reader.units >= 0
        for name, weight in _reading(model.get_submodule(reader.path)):
            if weight.ndim > 1:
                counts = elements(f"{reader.path}.{name}", weight.detach()).double().cpu()
                read.index_add_(0, reader.units[some], counts.movedim(1, 0).flatten(1).sum(1)[some])
    return made, read


def without(
    model: nn.Module, path: str, readers: Sequence[Reader], gone: Sequence[int], example: Inputs
) -> tuple[nn.Module, str]:
    """A copy of the model without the units `gone` of the layer at `path`, and ''; or the model
    itself and what is wrong with such a one.

    The proof that is asked for is that of `petra.model.channels.cut`: it computes what the model
    does when nothing, the layer's own gates included, reads those units. Cost: two copies, three
    passes.
    """
    lost = frozenset(gone)
    silent, cut = copy_model(model), copy_model(model)
    with evaluating(model), evaluating(silent), evaluating(cut), torch.no_grad():
        try:
            _silence(silent, path, readers, lost)
            _narrow(cut, path, readers, lost)
            before, expected, got = (outputs_of(m, example) for m in (model, silent, cut))
            wrong = disagreement(before, expected, got, must_show=False)
        except BREAKAGE as error:
            wrong = (
                f"without some of its units the model no longer runs ({breakage_in_words(error)})"
            )
    return (model, wrong) if wrong else (cut, "")


def _silence(model: nn.Module, path: str, readers: Sequence[Reader], gone: frozenset[int]) -> None:
    """Zero weights for the units, wherever they are read."""
    layer: Any = model.get_submodule(path)
    index = torch.tensor(sorted(gone))
    for name, depth, weight in _weights(layer):
        if name.startswith("weight_hh"):
            weight[:, index] = 0
        elif name.startswith("weight_ih") and depth:
            weight.view(len(weight), -1, layer.hidden_size)[:, :, index] = 0
    for reader in readers:
        for _, weight in _reading(model.get_submodule(reader.path)):
            if weight.ndim > 1:
                weight[:, ~columns(reader.units, gone)] = 0


def _narrow(model: nn.Module, path: str, readers: Sequence[Reader], gone: frozenset[int]) -> None:
    layer: Any = model.get_submodule(path)
    hidden = int(layer.hidden_size)
    kept = torch.tensor([unit for unit in range(hidden) if unit not in gone])
    for name, depth, weight in _weights(layer):
        gates = weight.reshape(-1, hidden, *weight.shape[1:])[:, kept]
        narrow = gates.flatten(0, 1)
        if name.startswith("weight_hh"):
            narrow = narrow[:, kept]
        elif name.startswith("weight_ih") and depth:
            narrow = narrow.reshape(len(narrow), -1, hidden)[:, :, kept].flatten(1)
        _replace(layer, name, narrow)
    layer.hidden_size = len(kept)
    for reader in readers:
        _take_inputs(model.get_submodule(reader.path), columns(reader.units, gone))


def _take_inputs(layer: Any, stay: Tensor) -> None:
    """Leave a reader those inputs that stay."""
    left = int(stay.sum())
    for name, weight in _reading(layer):
        narrow = weight[:, stay] if weight.ndim > 1 else weight[stay]
        if name in layer._parameters:
            _replace(layer, name, narrow)
        else:
            layer._buffers[name] = narrow.clone()
    size = {nn.Linear: "in_features", nn.Conv1d: "in_channels", nn.BatchNorm1d: "num_features"}
    named = next((size[kind] for kind in size if isinstance(layer, kind)), "input_size")
    setattr(layer, named, left)


def _weights(layer: nn.RNNBase) -> Iterator[tuple[str, int, Tensor]]:
    """Weights and biases of a recurrent layer by name, with how deep in the stack they are."""
    for name in layer._flat_weights_names:
        depth = int(name.removesuffix("_reverse").rpartition("_l")[2])
        yield name, depth, layer.get_parameter(name)


def _reading(layer: nn.Module) -> list[tuple[str, Tensor]]:
    """Tensors of a reader that have its inputs along the second dimension, or the only one."""
    if isinstance(layer, nn.RNNBase):
        names = [n for n in layer._flat_weights_names if n.startswith("weight_ih_l0")]
        return [(name, layer.get_parameter(name)) for name in names]
    if isinstance(layer, nn.BatchNorm1d):
        held = {**layer._parameters, **layer._buffers}
        return [(n, t) for n, t in held.items() if t is not None and t.ndim == 1]
    return [("weight", layer.get_parameter("weight"))]


def _replace(layer: nn.Module, name: str, value: Tensor) -> None:
    old = layer.get_parameter(name)
    new = nn.Parameter(value.detach().clone().contiguous(), requires_grad=old.requires_grad)
    setattr(layer, name, new)
