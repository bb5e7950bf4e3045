"""Layers that training would not change, because the model keeps gradients from them: ``no_grad``,
``detach``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.model.surgery import tensors_in
from petra.model.trainability import trainable
from petra.tasks.inputs import Inputs, call, named_outputs

NO_GRAD, INFERENCE = "runs under torch.no_grad()", "runs under torch.inference_mode()"
DETACHED = "gets no gradient: what it computes is detached, or not part of the output"
NOT_CALLED = "gets no gradient: the example inputs do not reach it"


def untrained(model: nn.Module, example: Inputs) -> dict[str, str]:
    """Paths of layers with weights of their own that no gradient reaches from the outputs, and why.

    example: a batch of two items or more. Layers whose weights are all frozen do not count. Cost:
    one forward pass, in training mode; buffers, modes and the random state are put back. Raises
    StageRefused when the model cannot be trained at all, saying why.
    """
    weighted = {path: m for path, m in model.named_modules() if trainable(m)}
    if not weighted:
        if any(p.is_floating_point() for p in model.parameters()):
            raise StageRefused(
                "an earlier stage has frozen all weights",
                hint="leave this stage out, or run it before the one that freezes",
            )
        return {}
    seen: dict[str, str] = {}
    outputs = _outputs(model, example, weighted, seen)
    reached = _leaves(t.grad_fn for t in outputs if t.grad_fn is not None)
    found = {
        path: seen.get(path) or (NOT_CALLED if path not in seen else DETACHED)
        for path, module in weighted.items()
        if not any(id(p) in reached for p in trainable(module))
    }
    if len(found) == len(weighted):
        path = next(
            (p for p, reason in found.items() if reason in (NO_GRAD, INFERENCE)), next(iter(found))
        )
        layer = f"layer {path!r}" if path else "it"
        raise StageRefused(
            f"the model cannot be trained: {layer} {found[path]}, and so with all other layers",
            hint=(
                "take no_grad, inference_mode or detach out of the forward pass; evaluation does"
                " not need them there"
            ),
        )
    return found


def _outputs(
    model: nn.Module, example: Inputs, layers: dict[str, nn.Module], seen: dict[str, str]
) -> list[torch.Tensor]:
    """The outputs of one pass as training makes it; `seen` says of every layer that runs what keeps
    gradients away."""

    def before(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            seen[path] = (
                INFERENCE
                if torch.is_inference_mode_enabled()
                else ""
                if torch.is_grad_enabled()
                else NO_GRAD
            )

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            # It is no_grad, inside a layer that was called with gradients on, that leaves no
            # history at all.
            if not seen[path] and not any(t.requires_grad for t in tensors_in(output)):
                inference = any(t.is_inference() for t in tensors_in(output))
                seen[path] = INFERENCE if inference else NO_GRAD

        return hook

    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = [(module, module.training) for module in model.modules()]
    handles = [m.register_forward_pre_hook(before(p), with_kwargs=True) for p, m in layers.items()]
    handles += [m.register_forward_hook(after(p), with_kwargs=True) for p, m in layers.items()]
    devices = [t.device for t in tensors_in(example) if t.is_cuda][:1]
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            model.train()
            return list(named_outputs(call(model, example)).values())
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        raise StageRefused(
            f"the model cannot be trained: a part of it {INFERENCE}, whose results no gradient may"
            " pass",
            hint="use torch.no_grad() for parts that are not to be trained",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in state and buffer.shape == state[name].shape:
                    buffer.copy_(state[name])


def _leaves(nodes: Iterable[Any]) -> set[int]:
    """Ids of the tensors that autograd's graph would give gradients to."""
    todo = list(nodes)
    seen = set(todo)
    found = set()
    while todo:
        node = todo.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                todo.append(before)
    return found
