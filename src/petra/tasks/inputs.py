"""What a model is called with: a tensor, a tuple of tensors or a dict of tensors, handled in one
place.

Names given here are the input names of the exported files: ``input`` for a tensor, ``input_0``,
``input_1``... for a tuple of several, the keys for a dict. Outputs are reduced to tensors the same
way (``output``, ``output_i``, keys).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from petra.core.errors import DataError
from petra.core.interface import (
    BATCH,
    DICT,
    TENSOR,
    TUPLE,
    Axis,
    Interface,
    TensorSpec,
    judged_output,
)
from petra.tasks.passes import one_pass
from petra.tasks.tensors import as_tensor, is_array, is_scalar, is_text

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Outputs = Mapping[str, Tensor]
"""All outputs of a model by their exported names, (n, ...) each."""


def call(model: nn.Module, inputs: Inputs) -> object:
    """Run the model the way its author's loader feeds it, as `one_pass`."""
    with one_pass(model):
        if isinstance(inputs, Tensor):
            return model(inputs)
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs)


def as_inputs(value: object, *, where: str) -> Inputs:
    """What a loader yields as inputs, as tensors: a mapping gives a dict, a sequence of arrays a
    tuple.

    Arrays and lists of numbers become tensors (`as_tensor`). Raises DataError for what holds none.
    """
    if isinstance(value, Tensor) or (
        is_array(value) and not _several(value) and not is_text(value)
    ):
        return as_tensor(value, what=f"{where}: inputs")
    if isinstance(value, Mapping) and value:
        return {str(k): as_tensor(v, what=f"{where}: inputs {str(k)!r}") for k, v in value.items()}
    if isinstance(value, tuple | list) and value and not is_text(value):
        return tuple(as_tensor(v, what=f"{where}: inputs {i}") for i, v in enumerate(value))
    if is_scalar(value) and not is_text(value):
        return as_tensor(value, what=f"{where}: inputs")
    if is_text(value):
        hint = "tokenize text first: a dict of input_ids and attention_mask"
    else:
        hint = (
            "allowed: a tensor or array (of an image: numpy.asarray(image)), a tuple or dict of"
            " them"
        )
    raise DataError(
        f"{where}: inputs are {'str' if is_text(value) else type(value).__name__}", hint=hint
    )


def _several(value: object) -> bool:
    return (
        isinstance(value, tuple | list)
        and not is_scalar(value[0])
        and not isinstance(value[0], list)
    )


def named(inputs: Inputs) -> dict[str, Tensor]:
    """Inputs by exported name."""
    if isinstance(inputs, Tensor):
        return {"input": inputs}
    if isinstance(inputs, dict):
        return dict(inputs)
    return {_position(i, len(inputs)): t for i, t in enumerate(inputs)}


def unnamed(tensors: Mapping[str, Tensor], like: Inputs) -> Inputs:
    """Inverse of `named`, in the structure of `like`."""
    if isinstance(like, Tensor):
        return tensors["input"]
    if isinstance(like, dict):
        return {k: tensors[k] for k in like}
    return tuple(tensors[_position(i, len(like))] for i in range(len(like)))


def _position(index: int, count: int) -> str:
    """A tuple of one is called as a tensor is, so a file cannot tell them apart."""
    return f"input_{index}" if count > 1 else "input"


def map_inputs(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    """Apply a function to every tensor, keeping the structure."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, dict):
        return {k: function(v) for k, v in inputs.items()}
    return tuple(function(t) for t in inputs)


def batch_size(inputs: Inputs) -> int:
    """Length of the first dimension, which all tensors must share."""
    sizes = {int(t.shape[0]) if t.ndim else 0 for t in named(inputs).values()}
    if len(sizes) != 1:
        raise DataError(
            f"inputs of one batch have different lengths {sorted(sizes)}",
            hint="batch along dimension 0",
        )
    return sizes.pop()


def batch_interface(inputs: Inputs) -> Interface:
    """What a batch of items of one shape says of a model's inputs: only the batch is free."""
    structure = (
        TENSOR if isinstance(inputs, Tensor) else DICT if isinstance(inputs, dict) else TUPLE
    )
    specs = []
    for name, t in named(inputs).items():
        axes = (Axis(BATCH), *map(Axis.fixed, t.shape[1:])) if t.ndim else ()
        specs.append(TensorSpec(name, type_name(t), axes, 0 if axes else None))
    return Interface(tuple(specs), structure=structure)


def type_name(t: Tensor) -> str:
    """NumPy's name of its type."""
    return str(t.dtype).removeprefix("torch.")


def named_outputs(value: object) -> dict[str, Tensor]:
    """Outputs by exported name: a tensor, a tuple or list, a mapping (Hugging Face outputs are
    mappings).
    """
    if isinstance(value, Tensor):
        return {"output": value}
    if isinstance(value, Mapping):
        found = {str(k): v for k, v in value.items() if isinstance(v, Tensor)}
    elif isinstance(value, tuple | list):
        found = {f"output_{i}": v for i, v in enumerate(value) if isinstance(v, Tensor)}
    else:
        found = {}
    if not found:
        raise DataError(
            f"the model returned {type(value).__name__}",
            hint="allowed: tensors, tuples or mappings of them",
        )
    return found


def comparable(outputs: Tensor) -> Tensor:
    """Outputs to compute differences of: 0 for minus infinity, the logit of a class that the model
    excludes. Any other value that is not finite stays."""
    return torch.where(outputs == -torch.inf, 0, outputs)


def prediction(value: object) -> Tensor:
    """The output a task judges unless it says otherwise."""
    return main_output(named_outputs(value))


def main_output(outputs: Outputs) -> Tensor:
    """`judged_output` of all."""
    return outputs[judged_output(tuple(outputs))]


def predictions(value: object) -> Outputs:
    """What a model returned, by name, real numbers as float32: what losses, distances and scorers
    are given.
    """
    return {k: t.float() if t.is_floating_point() else t for k, t in named_outputs(value).items()}
