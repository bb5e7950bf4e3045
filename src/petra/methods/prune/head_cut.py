"""Removing heads from attention layers, and the proof that nothing else changed.

What `petra.model.attention.find` says of a layer is a guess until a trial has shown that the model
without some heads computes what it computed while the layers that read the heads were blind to
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.model.attention.find import find_heads
from petra.model.attention.heads import Heads, Undo, gated, take_out
from petra.model.attention.separate import separate_attention
from petra.model.channels.breakage import BREAKAGE, breakage_in_words, outputs_of
from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, comparable

Bundle = tuple[Heads, ...]
"""Attention layers that lose the same heads: one layer, or all of a stack that share a table with
an entry per head.
"""


def find_bundles(
    model: nn.Module, example: Inputs, *, generator: torch.Generator
) -> tuple[list[Bundle], dict[str, str]]:
    """Attention layers whose heads were removed in a trial with the right result, and why others
    must keep theirs.

    Layers that fail alone are tried together with their counterparts in the same stack. The model
    ends as it began. Cost: one forward pass, and four for every reading that is tried.
    """
    try:
        found, refused = find_heads(model, lambda m: outputs_of(m, example))
    except BREAKAGE as error:
        raise StageRefused(
            f"cannot follow how layers depend on each other: {breakage_in_words(error)}"
        ) from error
    bundles: list[Bundle] = []
    stacks: dict[tuple[str, int], list[Heads]] = {}
    for path, readings in found.items():
        reasons = []
        for heads in readings:
            reasons.append(_trial(model, (heads,), example, generator))
            if not reasons[-1]:
                bundles.append((heads,))
                break
        else:
            refused[path] = reasons[0]
            stacks.setdefault(
                (re.sub(r"(^|\.)\d+(\.|$)", r"\1*\2", path, count=1), readings[0].units), []
            ).append(readings[0])
    for stack in stacks.values():
        if len(stack) > 1 and not _trial(model, tuple(stack), example, generator):
            bundles.append(tuple(stack))
            for heads in stack:
                del refused[heads.path]
    order = list(found)
    return sorted(bundles, key=lambda b: order.index(b[0].path)), refused


def _trial(model: nn.Module, bundle: Bundle, example: Inputs, generator: torch.Generator) -> str:
    """Why a random half of the heads cannot go; '' when it can. The model ends as it began."""
    units = torch.randperm(bundle[0].units, generator=generator)[: bundle[0].units // 2].tolist()
    wrong, undo = cut_heads(model, [(heads, units) for heads in bundle], example, must_show=True)
    undo()
    return wrong


def cut_heads(
    model: nn.Module,
    cuts: Sequence[tuple[Heads, list[int]]],
    example: Inputs,
    *,
    must_show: bool = False,
) -> tuple[str, Undo]:
    """Remove units, in place; what is wrong then ('' if nothing), and how to put them back.

    Right is what the model computes on `example` while the readers of the heads are blind to those
    units.
    """
    undos: list[Undo] = []

    def undo() -> None:
        while undos:
            undos.pop()()

    with evaluating(model), torch.no_grad():
        try:
            before = outputs_of(model, example)
            gates = [closed_gate(heads, units) for heads, units in cuts]
            with all_gated(model, [heads for heads, _ in cuts], gates):
                expected = outputs_of(model, example)
            for heads, units in cuts:
                undos.append(take_out(model, heads, units))
            got = outputs_of(model, example)
        except BREAKAGE as error:
            return (
                f"without some of its heads the model no longer runs ({breakage_in_words(error)})",
                undo,
            )
    return _difference(before, expected, got, must_show=must_show), undo


def _difference(
    before: list[Tensor], expected: list[Tensor], got: list[Tensor], *, must_show: bool
) -> str:
    if [t.shape for t in got] != [t.shape for t in expected]:
        return "removing some of its heads changes the shape of the output"
    before, expected, got = ([comparable(t) for t in ts] for ts in (before, expected, got))
    scale = max(float(t.abs().max()) for t in before)
    noise = 1e3 * max(torch.finfo(t.dtype).eps for t in before if t.is_floating_point()) * scale
    effect = max(
        float((a.double() - b.double()).abs().max()) for a, b in zip(before, expected, strict=True)
    )
    error = max(
        float((a.double() - b.double()).abs().max()) for a, b in zip(expected, got, strict=True)
    )
    if not error <= max(noise, 0.01 * effect):  # also when it is not a number
        return "without some of its heads it computes something else than with those heads ignored"
    if must_show and effect <= noise:
        return (
            "its heads have no effect on the output for the example inputs, so a cut cannot be"
            " checked"
        )
    return ""


def separated(model: nn.Module, example: Inputs) -> tuple[Undo, dict[str, str]]:
    """Make the heads of torch's own attention reachable where the model computes the same with it;
    else say why not.
    """
    own = [path for path, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)]
    put_back, _ = separate_attention(model)
    with evaluating(model), torch.no_grad():
        try:
            after = outputs_of(model, example)
            put_back()
            before = outputs_of(model, example)
            same = not _difference(before, before, after, must_show=False)
            reason = "" if same else "with its projections apart the model computes something else"
        except BREAKAGE as error:
            reason = f"the model uses more of it than its forward pass ({breakage_in_words(error)})"
        finally:
            put_back()
    if reason and own:
        return put_back, dict.fromkeys(own, reason)
    return separate_attention(model)


def closed_gate(heads: Heads, units: Sequence[int]) -> Tensor:
    gate = torch.ones(heads.units)
    gate[list(units)] = 0.0
    return gate


@contextmanager
def all_gated(model: nn.Module, layers: Sequence[Heads], gates: Sequence[Tensor]) -> Iterator[None]:
    """`gated`, for several layers."""
    with ExitStack() as stack:
        for heads, gate in zip(layers, gates, strict=True):
            stack.enter_context(gated(model, heads, gate))
        yield
