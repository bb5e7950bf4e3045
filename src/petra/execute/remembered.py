"""What a model remembers of passes that were made before petra had it, and makes again without."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.copies.copying import forget
from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, call, named_outputs


def forget_what_is_made_again(model: nn.Module, example: Inputs) -> tuple[str, ...]:
    """Take out tensors that `model`, in evaluation mode, computes again when they are missing; in
    place.

    A table of position biases that was looked up without gradients is a tensor like any constant,
    but stays behind when weights change or go. So every tensor that is an attribute of a module,
    and neither parameter nor buffer, is left out on trial: it goes if it comes back in the next
    pass and the outputs are the same. Names of those that went. Cost: nothing without such tensors,
    else two forward passes, and one for each tensor if some are needed.
    """
    held = list(_kept(model))
    if not held:
        return ()
    with evaluating(model), torch.no_grad():
        expected = named_outputs(call(model, example))
        gone = held if _made_again(model, example, held, expected) else []
        for kept in held if not gone and len(held) > 1 else ():
            if _made_again(model, example, [kept], expected):
                gone.append(kept)
    return tuple(kept.path for kept in gone)


@dataclass(frozen=True)
class _Kept:
    """An attribute of a module that is a tensor, or a container with tensors in it."""

    path: str
    module: nn.Module
    name: str
    value: Any

    def leave_out(self) -> None:
        if isinstance(self.value, Tensor):
            forget(self.module, self.name)
        else:
            vars(self.module)[self.name] = _without_tensors(self.value)

    def put_back(self) -> None:
        vars(self.module)[self.name] = self.value

    def is_there(self) -> bool:
        return _has_tensors(vars(self.module).get(self.name))


def _kept(model: nn.Module) -> Iterator[_Kept]:
    own = frozenset(vars(nn.Module()))
    for path, module in model.named_modules():
        # Of hooks: weight_g, weight_orig.
        derived = {name.rpartition("_")[0] for name in module._parameters}
        if isinstance(module, torch.fx.GraphModule | nn.RNNBase):
            continue
        for name, value in list(vars(module).items()):
            if name not in own and name not in derived and _has_tensors(value):
                yield _Kept(f"{path}.{name}" if path else name, module, name, value)


def _has_tensors(value: Any, depth: int = 3) -> bool:
    if isinstance(value, Tensor):
        return not isinstance(value, nn.Parameter)
    if not depth or type(value) not in (dict, list, tuple):
        return False
    return any(
        _has_tensors(part, depth - 1)
        for part in (value.values() if isinstance(value, dict) else value)
    )


def _without_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_tensors(v) for k, v in value.items() if not isinstance(v, Tensor)}
    if isinstance(value, list):
        return [_without_tensors(part) for part in value if not isinstance(part, Tensor)]
    return None if _has_tensors(value) else copy.copy(value)


def _made_again(
    model: nn.Module, example: Inputs, held: list[_Kept], expected: dict[str, Tensor]
) -> bool:
    """Leave tensors out, unless the model does not make all of them again or computes otherwise."""
    back: list[bool] = []
    handle = model.register_forward_hook(
        lambda *_: back.append(all(kept.is_there() for kept in held))
    )
    for kept in held:
        kept.leave_out()
    good = _same(lambda: named_outputs(call(model, example)), expected) and back == [True]
    handle.remove()
    if not good:
        for kept in held:
            kept.put_back()
    return good


def _same(run: Callable[[], dict[str, Tensor]], expected: dict[str, Tensor]) -> bool:
    try:
        got = run()
    except Exception:  # noqa: BLE001 - the model's own code, without what it may need
        return False
    return got.keys() == expected.keys() and all(
        t.shape == expected[name].shape
        and torch.allclose(t.float(), expected[name].float(), equal_nan=True)
        for name, t in got.items()
    )
