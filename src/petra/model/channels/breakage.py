"""Running a model whose widths may no longer fit: what it then raises, and how that is told."""

from __future__ import annotations

from torch import Tensor, nn

from petra.tasks.inputs import Inputs, call, named_outputs

# What a model's code raises when a tensor no longer has the width the code counts on.
BREAKAGE = (
    RuntimeError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
)


def outputs_of(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    return list(named_outputs(call(model, inputs)).values())


def breakage_in_words(error: BaseException) -> str:
    """What an error of the model's own code says, short enough to quote; of one that says nothing
    to who has not written the code, a word."""
    if isinstance(error, LookupError | TypeError | AttributeError | AssertionError):
        return "its code counts on another width"
    lines = str(error).splitlines()
    return lines[0][:160] if lines else type(error).__name__
