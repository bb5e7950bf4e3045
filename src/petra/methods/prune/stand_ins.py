"""Which blocks of a model can be left out, and what then stands in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from petra.methods.lowrank.modules import Factored
from petra.model.attention.find import upstream
from petra.model.kinds import mixes
from petra.model.surgery import differentiable, evaluating, tensors_in
from petra.tasks.inputs import Inputs, call

REPEATED = "called more than once in a forward pass"

Source = int | str | None
"""Where an output of a block comes from when the block is gone: a positional argument, a keyword,
or nowhere (None).
"""


class PassThrough(nn.Module):
    """What stays of a block: it returns some of its arguments, in the form in which the block
    returned its results.

    `sources` says which, one for a bare tensor or one per element of a tuple; `tuple_` tells the
    two apart.
    """

    def __init__(self, sources: tuple[Source, ...], *, tuple_: bool) -> None:
        super().__init__()
        self.sources, self.tuple_ = sources, tuple_

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = tuple(
            None if s is None else kwargs[s] if isinstance(s, str) else args[s]
            for s in self.sources
        )
        return found if self.tuple_ else found[0]


@dataclass
class _Calls:
    """What one module was seen to do: how often it ran, and what can stand in for it."""

    times: int = 0
    stand_in: nn.Module | None = None
    shortcut: bool = False
    marker: Any = None
    given: Tensor | None = None
    alone: bool = False
    outputs: list[Any] = field(default_factory=list)


def stand_ins(model: nn.Module, example: Inputs) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """What may take the place of every droppable block, and why blocks like it cannot go.

    A block runs once, has weights inside, and gives back its first input's shape: a residual block
    or transformer layer, recognised by a way around its weights, or the innermost module that maps
    one tensor to one of its shape. Of nested residual blocks the outermost counts that is not a
    stack of several of a kind, so that a transformer layer goes as a whole. Other results of a
    block must be None or handed through. Factors are the one layer that they were made of, not a
    block. Cost: one forward pass.
    """
    composite = {
        p: m for p, m in model.named_modules() if p and m._modules and not isinstance(m, Factored)
    }
    seen = _observe(model, composite, example)
    weighty = {
        p: c
        for p, c in seen.items()
        if any(mixes(m) for m in composite[p].modules()) and c.stand_in
    }
    fits = {p: c for p, c in weighty.items() if c.times == 1}
    residual = [p for p in fits if fits[p].shortcut]
    single = [p for p in residual if not _is_stack(p, residual, composite)]
    blocks = {p for p in single if not any(_inside(p, q) for q in single)}
    plain = [p for p, c in fits.items() if c.alone and not c.shortcut]
    for p in plain:
        nested = any(_inside(q, p) for q in (*plain, *residual))
        if not nested and not any(_inside(p, q) for q in blocks):
            blocks.add(p)
    again = [p for p, c in weighty.items() if c.times > 1 and c.shortcut]
    repeated = {p: REPEATED for p in again if not any(_inside(p, q) for q in again)}
    found = {p: fits[p].stand_in for p in composite if p in blocks}
    return {p: m for p, m in found.items() if m is not None}, repeated


def _is_stack(path: str, blocks: list[str], modules: Mapping[str, nn.Module]) -> bool:
    """Whether a module holds several blocks of one class beside each other."""
    inner = [p for p in blocks if _inside(p, path)]
    inner = [p for p in inner if not any(_inside(q, p) for q in inner)]
    kinds = [type(modules[p]) for p in inner]
    return len(set(kinds)) < len(kinds)


def _inside(path: str, outer: str) -> bool:
    return path.startswith(f"{outer}.")


def _observe(
    model: nn.Module, modules: Mapping[str, nn.Module], example: Inputs
) -> dict[str, _Calls]:
    """Watch `modules` during one forward pass; absent if not called."""
    seen: dict[str, _Calls] = {}
    mixed: dict[Any, str] = {}

    def enter(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            calls = seen.setdefault(path, _Calls())
            calls.times += 1
            source = _first_tensor(args, kwargs)
            if source is None:
                return None
            # A copy of the input, whose node in autograd's graph no other way leads to.
            x = args[source] if isinstance(source, int) else kwargs[source]
            calls.given = (x if x.requires_grad else x.detach().requires_grad_()).clone()
            calls.marker = calls.given.grad_fn
            if isinstance(source, int):
                return (*args[:source], calls.given, *args[source + 1 :]), kwargs
            return args, {**kwargs, source: calls.given}

        return hook

    def leave(path: str) -> Callable[..., None]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            calls = seen[path]
            if calls.given is None:
                return
            calls.alone = len(args) == 1 and not kwargs and isinstance(output, Tensor)
            calls.stand_in = _stand_in(module, calls.given, args, kwargs, output)
            first = next(tensors_in(output), None)
            if calls.stand_in is not None and first is not None and first.grad_fn is not None:
                calls.shortcut = "" in upstream([first.grad_fn], {**mixed, calls.marker: ""})[0]
            calls.given = calls.marker = None

        return hook

    def mix(module: nn.Module, inputs: object, output: object) -> None:
        mixed.update((t.grad_fn, "mixed") for t in tensors_in(output) if t.grad_fn is not None)

    hooks = [m.register_forward_hook(mix) for m in model.modules() if mixes(m)]
    for path, module in modules.items():
        hooks.append(module.register_forward_pre_hook(enter(path), with_kwargs=True))
        hooks.append(module.register_forward_hook(leave(path), with_kwargs=True))
    try:
        with evaluating(model), differentiable(model):
            call(model, example)
    finally:
        for handle in hooks:
            handle.remove()
    return seen


def _first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Source:
    """Where a block's main input is: its first argument, if that is a floating-point tensor."""
    place: Source = 0 if args else next(iter(kwargs), None)
    if place is None:
        return None
    value = args[0] if args else kwargs[str(place)]
    return place if isinstance(value, Tensor) and value.is_floating_point() else None


def _stand_in(
    module: nn.Module, given: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
) -> nn.Module | None:
    """A module that returns `given` where the block returned its first result; None if its results
    do not allow it.
    """
    results = (output,) if isinstance(output, Tensor) else output
    if type(results) is not tuple or not results or not isinstance(results[0], Tensor):
        return None
    if results[0].shape != given.shape or results[0].dtype != given.dtype:
        return None
    sources: list[Source] = [_place(given, args, kwargs)]
    for extra in results[1:]:
        place = None if extra is None else _place(extra, args, kwargs)
        if extra is not None and place is None:
            return None
        sources.append(place)
    if isinstance(output, Tensor) and len(args) == 1 and not kwargs:
        return nn.Identity()
    passing = PassThrough(tuple(sources), tuple_=not isinstance(output, Tensor))
    for name, value in vars(module).items():
        if type(value) in (bool, int, float, str) and name != "training":
            # The code around a layer may ask it for its kind or its number.
            vars(passing)[name] = value
    return passing


def _place(value: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Source:
    for i, argument in enumerate(args):
        if argument is value:
            return i
    return next((name for name, argument in kwargs.items() if argument is value), None)
