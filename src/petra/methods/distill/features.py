"""Feature distillation: the student's blocks should put out what the teacher's blocks of the same name put out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, call


def relative_distance(student: Iterable[Tensor], teacher: Iterable[Tensor]) -> Tensor:
    """Mean over pairs of ||s - t||^2 / ||t||^2 (Romero et al. 2015, without a regressor; scaled so that blocks count
    alike). Tensors of a pair have one shape; at least one pair is needed."""
    terms = [(s - t).square().sum() / t.square().sum().clamp_min(1e-12) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(terms).mean()


class Tap:
    """What the modules at `paths` put out during the latest forward pass of `model`."""

    def __init__(self, model: nn.Module, paths: Iterable[str]) -> None:
        self._latest: dict[str, Tensor] = {}
        self.paths = tuple(paths)
        self._handles = [model.get_submodule(p).register_forward_hook(self._keep(p)) for p in self.paths]

    def _keep(self, path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                self._latest[path] = output

        return hook

    def outputs(self) -> list[Tensor]:
        """In the order of `paths`."""
        return [self._latest[p].float() for p in self.paths]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _shapes(model: nn.Module, inputs: Inputs) -> Iterator[tuple[str, torch.Size]]:
    composite = [path for path, m in model.named_modules() if path and m._modules]
    tap = Tap(model, composite)
    try:
        with evaluating(model), torch.no_grad():
            call(model, inputs)
        yield from ((path, output.shape) for path, output in tap._latest.items())
    finally:
        tap.close()


def matching_blocks(student: nn.Module, teacher: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """Paths of modules made of other modules that exist in both and put out one tensor of one shape.

    A module inside another that also matches counts; the root does not, its output is what logit distillation sees.
    """
    theirs = dict(_shapes(teacher, inputs))
    return tuple(path for path, shape in _shapes(student, inputs) if theirs.get(path) == shape)


@contextmanager
def tapped(student: nn.Module, teacher: nn.Module, paths: tuple[str, ...]) -> Iterator[tuple[Tap, Tap]]:
    """Taps on both models, removed afterwards."""
    taps = Tap(student, paths), Tap(teacher, paths)
    try:
        yield taps
    finally:
        for tap in taps:
            tap.close()
