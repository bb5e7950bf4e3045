"""One forward pass as petra makes it: torch's layers in their plain form, and the modules as they
were afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import grad_mode
from torch.nn.modules import transformer

from petra.tasks.remains import is_traced, put_back

_detect = transformer._detect_is_causal_mask


@contextmanager
def one_pass(model: nn.Module) -> Iterator[None]:
    """Run `model` inside, eagerly or traced, as often as needed.

    torch's transformer layers compute in their plain form (`plain_attention`), and what the model
    remembers of the pass is forgotten at the end (`petra.tasks.remains.put_back`). In evaluation
    mode with gradients on, which is how dependencies are followed and importance is measured,
    gradients pass parts that the model keeps them from.
    """
    following = torch.is_grad_enabled() and not model.training
    with (
        plain_attention(),
        put_back(model),
        _gradients_everywhere() if following else nullcontext(),
    ):
        yield


@contextmanager
def _gradients_everywhere() -> Iterator[None]:
    """``no_grad``, ``set_grad_enabled`` and ``inference_mode`` of the model's own switch nothing
    off inside; where torch itself uses them, it needs them.
    """
    core: Any = torch._C
    set_enabled, inference = core._set_grad_enabled, core._InferenceMode

    def enable(mode: bool) -> None:
        set_enabled(mode or (torch.is_grad_enabled() and not _asked_by_torch()))

    def infer(mode: bool) -> Any:
        return inference(mode) if not mode or _asked_by_torch() else nullcontext()

    core._set_grad_enabled, core._InferenceMode = enable, infer
    try:
        yield
    finally:
        core._set_grad_enabled, core._InferenceMode = set_enabled, inference


def _asked_by_torch() -> bool:
    """Whether it is torch's own code that switches a mode, or has a decorator do it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") == grad_mode.__name__:
        frame = frame.f_back
    if frame is None:
        return False
    if frame.f_code.co_name == "decorate_context":
        asking = getattr(frame.f_locals.get("func"), "__module__", "")
    else:
        asking = frame.f_globals.get("__name__", "")
    return str(asking).startswith("torch.")


@contextmanager
def plain_attention() -> Iterator[None]:
    """Inside, torch's transformer layers compute what they do in training, and what files hold.

    Their fused form, which only eager PyTorch has, and only without gradients, leaves zeros at
    padded positions, where the plain form has values; some models then average over them. And a
    mask that is being traced is not compared with the causal one.
    """
    fused, detect = torch.backends.mha.get_fastpath_enabled(), transformer._detect_is_causal_mask
    torch.backends.mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = _is_causal
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = detect
        torch.backends.mha.set_fastpath_enabled(fused)


def _is_causal(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Whether attention may do without the mask because it is the causal one.

    The values of a traced mask are unknown. It is applied as any other then, to the same result.
    """
    if is_causal is None and (is_traced(mask) or torch.compiler.is_compiling()):
        return False
    return bool(_detect(mask, is_causal, size))
