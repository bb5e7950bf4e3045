"""Feature distillation: which blocks of two models correspond, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petra.methods.distill.attention import are_probabilities, spatial_attention
from petra.model.kinds import Convolution
from petra.model.surgery import evaluating, tensors_in
from petra.tasks.inputs import Inputs, call


def relative_distance(student: Iterable[Tensor], teacher: Iterable[Tensor]) -> Tensor:
    """Mean over pairs of ||s - t||^2 / ||t||^2 (Romero et al. 2015, without a regressor; scaled so
    that blocks count alike). Tensors of a pair have one shape; at least one pair is needed.
    """
    terms = [
        (s - t).square().sum() / t.square().sum().clamp_min(1e-12)
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()


def whole(output: Tensor) -> Tensor:
    return output


@dataclass(frozen=True)
class Spot:
    """What is compared of one module: the `index`-th tensor it puts out, seen through `view`."""

    path: str
    index: int = 0
    view: Callable[[Tensor], Tensor] = whole


@dataclass(frozen=True)
class Pair:
    """Corresponding spots of two models. As text: the path, or both where they differ."""

    student: Spot
    teacher: Spot

    def __str__(self) -> str:
        own, theirs = self.student.path, self.teacher.path
        return own if own == theirs else f"{own} ~ {theirs}"


class Tap:
    """What `model` put out at `spots` during its latest forward pass; of a module called
    repeatedly, the last time.
    """

    def __init__(self, model: nn.Module, spots: Sequence[Spot]) -> None:
        self._latest: dict[Spot, Tensor] = {}
        self.spots = tuple(spots)
        self._handles = [
            model.get_submodule(s.path).register_forward_hook(self._keep(s)) for s in self.spots
        ]
        self._handles.append(
            model.register_forward_pre_hook(lambda module, inputs: self._latest.clear())
        )

    def _keep(self, spot: Spot) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            self._latest[spot] = list(tensors_in(output))[spot.index]

        return hook

    def outputs(self) -> list[Tensor | None]:
        """In the order of `spots`; None for a module that did not run (layers dropped at random,
        for one).
        """
        return [s.view(self._latest[s].float()) if s in self._latest else None for s in self.spots]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _outputs(model: nn.Module, inputs: Inputs) -> dict[str, list[Tensor]]:
    """What every module made of others puts out, but the root, in the order of finishing."""
    seen: dict[str, list[Tensor]] = {}

    def record(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            seen[path] = list(tensors_in(output))

        return hook

    handles = [
        m.register_forward_hook(record(p)) for p, m in model.named_modules() if p and m._modules
    ]
    try:
        with evaluating(model), torch.no_grad():
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _spot(path: str, module: nn.Module, tensors: Sequence[Tensor], kind: str) -> Spot | None:
    """Where to look at a module, None where there is nothing of this `kind`."""
    if kind == "attention":
        for index, tensor in enumerate(tensors):
            if are_probabilities(tensor):
                return Spot(path, index)
    if not tensors or not tensors[0].is_floating_point():
        return None
    if kind == "values":
        return Spot(path)
    return Spot(path, 0, spatial_attention) if _channels_first(module, tensors[0]) else None


def _channels_first(module: nn.Module, output: Tensor) -> bool:
    """Whether an output is (B, C, *spatial), as far as the convolutions inside the module tell."""
    convolutions = [m for m in module.modules() if isinstance(m, Convolution)]
    fitting = [m for m in convolutions if m.weight.ndim == output.ndim]
    return any(output.ndim > 3 or m.out_channels == output.shape[1] for m in fitting)


def _found(model: nn.Module, inputs: Inputs, kind: str) -> Iterator[tuple[Spot, Tensor]]:
    for path, tensors in _outputs(model, inputs).items():
        spot = _spot(path, model.get_submodule(path), tensors, kind)
        if spot is not None:
            yield spot, tensors[spot.index]


def matched(
    student: nn.Module,
    teacher: nn.Module,
    inputs: Inputs,
    *,
    kind: str = "values",
    match: str = "name",
) -> tuple[Pair, ...]:
    """Corresponding blocks of two models, of which something of one shape can be compared.

    Blocks are modules made of other modules; one inside another counts too, the root does not: its
    output is what logit distillation sees. `kind` is what is compared: values (a module's first
    output) or attention (probabilities among its outputs, otherwise the spatial attention of blocks
    with convolutions). `match` by name pairs blocks of one path; by shape it pairs, among blocks of
    one output shape, in the order they run, spread evenly where one model has more of them, the
    last with the last (the uniform mapping of Jiao et al. 2020). Cost: a forward pass of each.
    """
    own, theirs = ([*_found(m, inputs, kind)] for m in (student, teacher))
    pairs: list[Pair] = []
    if match == "name":
        by_path = {spot.path: (spot, tensor) for spot, tensor in theirs}
        for spot, tensor in own:
            other, reference = by_path.get(spot.path, (None, None))
            if (
                reference is not None
                and spot == other
                and spot.view(tensor).shape == spot.view(reference).shape
            ):
                pairs.append(Pair(spot, spot))
        return tuple(pairs)
    ours_by_shape, theirs_by_shape = _by_shape(own), _by_shape(theirs)
    for shape, spots in ours_by_shape.items():
        others = theirs_by_shape.get(shape, [])
        n = min(len(spots), len(others))
        pairs += (
            Pair(spots[_nth(j, n, len(spots))], others[_nth(j, n, len(others))])
            for j in range(1, n + 1)
        )
    return tuple(pairs)


def _by_shape(found: Iterable[tuple[Spot, Tensor]]) -> dict[tuple[object, ...], list[Spot]]:
    """Spots of one view and shape, in order; a tensor that several modules pass on counts once, for
    the innermost.
    """
    groups: dict[tuple[object, ...], list[Spot]] = {}
    passed: list[Tensor] = []
    for spot, tensor in found:
        if not any(tensor is other for other in passed):
            passed.append(tensor)
            groups.setdefault((spot.view, *spot.view(tensor).shape), []).append(spot)
    return groups


def _nth(j: int, n: int, total: int) -> int:
    """Position, from 0, of the j-th of n picked evenly from `total`, the n-th being the last."""
    return -(-j * total // n) - 1


@contextmanager
def tapped(
    student: nn.Module, teacher: nn.Module, pairs: Sequence[Pair]
) -> Iterator[tuple[Tap, Tap]]:
    """Taps on both models, removed afterwards."""
    taps = Tap(student, [p.student for p in pairs]), Tap(teacher, [p.teacher for p in pairs])
    try:
        yield taps
    finally:
        for tap in taps:
            tap.close()
