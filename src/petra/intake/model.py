"""The copy of the user's model that petra works on: plain, on the CPU, float32, in evaluation."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from petra.core.errors import DataError
from petra.intake.kinds import as_model, unwrapped
from petra.model.copies.computed import fold_computed_layers
from petra.model.copies.copying import NotCopyable, copy_model
from petra.model.copies.parametrized import fold_parametrizations
from petra.model.sparsity import hold_zeros
from petra.tasks.inputs import Inputs, call
from petra.tasks.tensors import WIDE


def working_copy(model: object) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy of what the user gave as the model, and remarks on what was done to it. The original
    stays as it is.

    Wrappers that compile or distribute are taken off, weights that are computed from others folded,
    floating-point types other than float32 converted. Raises DataError for what is no usable
    module.
    """
    module = as_model(model)
    _refuse_cycles(module)
    _refuse_unmade(module)
    try:
        copied = copy_model(module).cpu()
        modal = copied.train(False) is copied and copied.eval() is copied
    except NotCopyable as error:
        raise DataError(error.message, hint=error.hint) from error
    except NotImplementedError as error:  # so do graphs that torch.export has made
        raise DataError(
            f"the model has no evaluation mode: {error}",
            hint="give the nn.Module that it was exported from",
        ) from error
    if not modal:
        raise DataError(
            f"train or eval of {type(module).__name__} does not return the model",
            hint="let it end with: return self",
        )
    for parent in list(copied.modules()):
        for name, child in parent._modules.items():
            if child is not None:
                parent._modules[name] = unwrapped(child)
    computed = _said("weights that are computed from others", fold_parametrizations(copied))
    return copied, tuple(filter(None, (computed, _to_float32(copied))))


def with_plain_layers(model: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """Make plain layers, in place, of those that compute their weight in `forward`; a remark if
    there were any. `inputs` are a few items that the model takes."""
    folded = fold_computed_layers(model, lambda m: call(m, inputs))
    return tuple(filter(None, [_said("layers that compute their weight", folded)]))


def with_zeros_held(model: nn.Module) -> tuple[str, ...]:
    """Let training keep the zeros of a model that comes in pruned, in place; a remark if it
    does."""
    share = hold_zeros(model)
    said = f"{share:.0%} of the weights come in as zeros, which training keeps"
    return (said,) if share else ()


def _said(what: str, folded: tuple[str, ...]) -> str:
    if not folded:
        return ""
    more = f" and {len(folded) - 1} more" if len(folded) > 1 else ""
    return f"{what} are treated as plain ones: {folded[0]}{more}"


def _to_float32(model: nn.Module) -> str:
    tensors = (*model.parameters(), *model.buffers())
    found = sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.dtype in WIDE})
    if not found:
        return ""
    model.float()
    return f"the model holds {' and '.join(found)}; petra works on a float32 copy"


def _refuse_cycles(model: nn.Module) -> None:
    """Raise DataError for a module that is inside itself, which no walk gets out of."""
    begun: set[int] = set()
    done: set[int] = set()
    walk: list[tuple[nn.Module, str, bool]] = [(model, "", False)]
    while walk:
        module, path, leaving = walk.pop()
        if leaving:
            begun.discard(id(module))
            done.add(id(module))
        elif id(module) in begun:
            raise DataError(
                f"layer {path!r} ({type(module).__name__}) contains itself",
                hint="keep a reference to an outer module out of the tree: self._outer = [outer]",
            )
        elif id(module) not in done:
            begun.add(id(module))
            walk.append((module, path, True))
            inner = [(m, f"{path}.{name}" if path else name) for name, m in module._modules.items()]
            walk.extend((m, inside, False) for m, inside in reversed(inner) if m is not None)


def _refuse_unmade(model: nn.Module) -> None:
    """Raise DataError for weights without values: lazy layers that never ran, the meta device."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise DataError(
                f"the weight {name!r} has no shape yet",
                hint="run the model once, on a batch, before petra gets it",
            )
        if tensor.is_meta:
            raise DataError(
                f"the weight {name!r} is on the meta device: it has no values",
                hint=(
                    "load the weights first: model.to_empty(device='cpu');"
                    " model.load_state_dict(...)"
                ),
            )
