"""Small operations on modules that the structural methods share: find, count, compare, replace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from petra.model.kinds import MIXING_LAYERS


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` where `path` (as in `named_modules`) leads.

    The root itself cannot be replaced.
    """
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    if not name or name not in owner._modules:
        raise AttributeError(f"{type(model).__name__} has no submodule {path!r}")
    owner._modules[name] = module


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, shared ones counted once; buffers do not count."""
    return sum(p.numel() for p in model.parameters())


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def leaf_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules that contain no other module."""
    for path, module in model.named_modules():
        if not module._modules:
            yield path, module


def aliases_of(model: nn.Module) -> dict[str, list[str]]:
    """All paths of each module, by the first."""
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    return {found[0]: found for found in paths.values()}


def shared_weights(model: nn.Module) -> Mapping[str, tuple[str, ...]]:
    """Paths of modules that own a parameter also found under another path -> those other paths.

    Covers one parameter in two modules and one module registered under two names.
    """
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for p in module.parameters(recurse=False):
            owners.setdefault(id(p), []).append(path)
    shared: dict[str, tuple[str, ...]] = {}
    for paths in owners.values():
        for path in paths:
            others = tuple(p for p in paths if p != path)
            if others:
                shared[path] = tuple(sorted({*shared.get(path, ()), *others}))
    return shared


def has_derived_weight(module: nn.Module) -> bool:
    """Whether the module's weight is computed from others (a parametrization, `weight_norm`)."""
    weight = module._parameters.get("weight")
    return parametrize.is_parametrized(module) or (weight is None and hasattr(module, "weight"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own mode is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Inside, every floating-point parameter requires a gradient; afterwards as before.

    Goes by name, because surgery inside the block replaces parameters.
    """
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    for p in model.parameters():
        if p.is_floating_point():
            p.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for name, p in model.named_parameters():
            if name in frozen:
                p.requires_grad_(False)


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def output_layers(
    model: nn.Module, forward: Callable[[nn.Module], Iterable[Tensor]]
) -> frozenset[str]:
    """Paths of layers that produce what `forward(model)` returns: the last to mix on each way.

    Found by walking the autograd graph back from the outputs through everything that keeps channels
    in place (norms, activations, sums), so neither a layer's name nor its position in the module
    list matters. Where a functional operation with a weight of its own ends the model, the layers
    before it are reported: too many rather than too few. Cost: one forward pass.
    """
    produced_by: dict[Any, str] = {}

    def record(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            for tensor in tensors_in(output):
                if tensor.grad_fn is not None:
                    produced_by[tensor.grad_fn] = path

        return hook

    hooks = [
        m.register_forward_hook(record(p))
        for p, m in model.named_modules()
        if isinstance(m, MIXING_LAYERS)
    ]
    try:
        with evaluating(model), differentiable(model):
            outputs = list(forward(model))
    finally:
        for handle in hooks:
            handle.remove()

    found: set[str] = set()
    stack: list[Any] = [t.grad_fn for t in outputs if t.grad_fn is not None]
    seen: set[Any] = set(stack)
    while stack:
        node = stack.pop()
        if node in produced_by:
            found.add(produced_by[node])
            continue
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                stack.append(before)
    return frozenset(found)


def input_layers(model: nn.Module, forward: Callable[[nn.Module], object]) -> frozenset[str]:
    """Paths of layers that read what `forward(model)` feeds the model, as it comes or changed by
    what has no parameters: the first to mix on each way. Cost: one forward pass.
    """
    found: set[str] = set()

    def record(path: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[object, ...]) -> None:
            real = [t for t in tensors_in(inputs) if t.is_floating_point()]
            # All parameters require a gradient here, so what depends on one does.
            if real and not any(t.requires_grad for t in real):
                found.add(path)

        return hook

    hooks = [
        m.register_forward_pre_hook(record(p))
        for p, m in model.named_modules()
        if isinstance(m, MIXING_LAYERS)
    ]
    try:
        with evaluating(model), differentiable(model):
            forward(model)
    finally:
        for handle in hooks:
            handle.remove()
    return frozenset(found)


def layer_shapes(
    model: nn.Module, forward: Callable[[nn.Module], object]
) -> Mapping[str, tuple[tuple[torch.Size, torch.Size], ...]]:
    """(input shape, output shape) of every call of every leaf layer during `forward(model)`; absent
    if not called.

    Cost: one pass without gradients.
    """
    calls: dict[str, list[tuple[torch.Size, torch.Size]]] = {}

    def record(path: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                calls.setdefault(path, []).append((inputs[0].shape, output.shape))

        return hook

    hooks = [m.register_forward_hook(record(p)) for p, m in leaf_layers(model)]
    try:
        with evaluating(model), torch.no_grad():
            forward(model)
    finally:
        for handle in hooks:
            handle.remove()
    return {path: tuple(shapes) for path, shapes in calls.items()}


def is_under(path: str, names: frozenset[str]) -> bool:
    """Whether a module path is one of `names` or lies inside one of them."""
    return any(path == name or path.startswith(f"{name}.") for name in names)
