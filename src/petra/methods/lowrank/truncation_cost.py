"""What truncating one layer does to a model's predictions, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from petra.core.interface import judged_output
from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, call, comparable, named_outputs

Names = tuple[str, ...]


def main_alone(outputs: Names) -> Names:
    """Of a model's outputs, the one that tasks look at unless they say otherwise."""
    return (judged_output(outputs),)


def prediction_distances(
    model: nn.Module,
    batches: Sequence[Inputs],
    options: Mapping[str, Sequence[Callable[[], Tensor]]],
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    judged: Callable[[Names], Names] = main_alone,
) -> dict[str, list[float]]:
    """For each layer's path and each of its optional weights, how far predictions move when it
    alone has that weight.

    Distance: squared differences to the present predictions over their spread around their mean, so
    that 1 is as bad as predicting nothing; summed over the outputs that are `judged`. Infinite
    where predictions are not finite. The model is left as it was. Cost: one forward pass over
    `batches` for every option.
    """
    distances: dict[str, list[float]] = {}
    with evaluating(model), torch.no_grad():
        reference = _predict(model, batches, judged)
        spreads = [float((r - r.mean()).square().sum()) or 1.0 for r in reference]
        for i, (path, weights) in enumerate(options.items()):
            progress(i, len(options), path)
            parameter = model.get_submodule(path).weight
            assert isinstance(parameter, nn.Parameter)
            kept = parameter.data
            distances[path] = []
            try:
                for weight in weights:
                    parameter.data = weight()
                    after = _predict(model, batches, judged)
                    moved = sum(
                        float((a - r).square().sum()) / spread
                        for a, r, spread in zip(after, reference, spreads, strict=True)
                    )
                    distances[path].append(moved if moved < float("inf") else float("inf"))
            finally:
                parameter.data = kept
    return distances


def _predict(
    model: nn.Module, batches: Sequence[Inputs], judged: Callable[[Names], Names]
) -> list[Tensor]:
    """All predictions of each output, flattened (batches may differ in length), in double."""
    found = [named_outputs(call(model, inputs)) for inputs in batches]
    return [
        torch.cat([comparable(outputs[name]).double().flatten() for outputs in found])
        for name in judged(tuple(found[0]))
    ]
