"""What truncating one layer does to a model's predictions, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, call, comparable, prediction


def prediction_distances(
    model: nn.Module,
    batches: Sequence[Inputs],
    options: Mapping[str, Sequence[Callable[[], Tensor]]],
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, list[float]]:
    """For each layer's path and each of its optional weights, how far predictions move when it
    alone has that weight.

    Distance: squared differences to the present predictions over their spread around their mean, so
    that 1 is as bad as predicting nothing. Infinite where predictions are not finite. The model is
    left as it was. Cost: one forward pass over `batches` for every option.
    """
    distances: dict[str, list[float]] = {}
    with evaluating(model), torch.no_grad():
        reference = _predict(model, batches)
        spread = float((reference - reference.mean()).square().sum()) or 1.0
        for i, (path, weights) in enumerate(options.items()):
            progress(i, len(options), path)
            parameter = model.get_submodule(path).weight
            assert isinstance(parameter, nn.Parameter)
            kept = parameter.data
            distances[path] = []
            try:
                for weight in weights:
                    parameter.data = weight()
                    moved = float((_predict(model, batches) - reference).square().sum()) / spread
                    distances[path].append(moved if moved < float("inf") else float("inf"))
            finally:
                parameter.data = kept
    return distances


def _predict(model: nn.Module, batches: Sequence[Inputs]) -> Tensor:
    """All predictions, flattened (batches may differ in length), in double."""
    return torch.cat([comparable(prediction(call(model, b))).double().flatten() for b in batches])
