"""What the PyTorch model itself predicts: what files are held against, and what a candidate is
judged by before there are any.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from petra.core.errors import ParityError
from petra.core.interface import Interface, judged_output
from petra.measure.stored import PREDICTION_BATCH, load_split, save_arrays
from petra.runtimes.base import Arrays
from petra.runtimes.verify import has_fixed_infinities
from petra.tasks.inputs import Inputs, call, named_outputs, unnamed

PARITY_ITEMS = 2 * PREDICTION_BATCH


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: Iterable[tuple[np.ndarray, Arrays]],
    example: Inputs,
    interface: Interface | None,
    count: int,
) -> Arrays:
    """Predictions (count, ...) of the outputs that are judged; `batches` are places among the
    `count` and inputs by name.
    """
    found: Arrays = {}
    for index, arrays in batches:
        inputs = unnamed({k: torch.from_numpy(v) for k, v in arrays.items()}, like=example)
        outputs = named_outputs(call(model, inputs))
        for name in interface.judged if interface else (judged_output(tuple(outputs)),):
            tensor = outputs[name]
            part = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            found.setdefault(name, np.empty((count, *part.shape[1:]), part.dtype))[index] = part
    return found


def save_reference(
    model: nn.Module, data: Path, example: Inputs, path: Path, *, items: int = PARITY_ITEMS
) -> None:
    """Predictions of the PyTorch model on the first `items` validation items, for the parity check.

    In the batches in which the artifact predicts them: dynamically quantized layers have a range
    for each batch.
    """
    split = load_split(data)
    batches = split.items.in_batches(items)
    found = predict(model, batches, example, split.interface, min(items, len(split.items)))
    for reference in found.values():
        _check_reference(model, reference)
    save_arrays(path, found)


def _check_reference(model: nn.Module, reference: np.ndarray) -> None:
    if has_fixed_infinities(reference):
        return
    named = (*model.named_parameters(), *model.named_buffers())
    wrecked = next((name for name, t in named if not torch.isfinite(t).all()), None)
    found = f"its weight {wrecked!r} is not finite" if wrecked else "its weights are finite"
    raise ParityError(
        "the PyTorch model itself returns NaN or infinity on validation items",
        hint=found if wrecked else f"{found}: values overflow",
    )
