"""Prompt tuning: trained states among those of the tokens (Lester et al. 2021; of images, Jia et
al. 2022, "VPT").
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from petra.model.layers.adapters import Around, Holding

_FILLED = {"attention_mask": 1, "token_type_ids": 0}


class Prompt(nn.Module):
    """`states` (length, width)."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = nn.Parameter(states)

    def rows(self, like: Tensor) -> Tensor:
        """The states for every item of `like` (n, ..., width): (n, length, width)."""
        return self.states.to(like).expand(like.shape[0], -1, -1)


class Prompted(Around):
    """A Hugging Face model over token ids, with a prompt before the tokens' embeddings. Masks and
    positions are the model's own, of a sequence that is longer by the prompt; what it returns is
    without it again. `inside` says that a `WithoutPrompt` in it takes it away already, before
    whatever pools the first token.
    """

    kind: ClassVar[str] = "prompt"
    insert: Prompt

    def __init__(self, layer: nn.Module, insert: Prompt, *, inside: bool) -> None:
        super().__init__(layer, insert)
        self.inside = inside

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = _by_name(self.layer, args, kwargs)
        ids, embedded = given.pop("input_ids", None), given.pop("inputs_embeds", None)
        if embedded is None:
            embedded = self.layer.get_input_embeddings()(ids)  # type: ignore[operator]
        length = self.insert.states.shape[0]
        given["inputs_embeds"] = torch.cat([self.insert.rows(embedded), embedded], 1)
        for name, value in _FILLED.items():
            tensor = given.get(name)
            if isinstance(tensor, Tensor):
                extra = tensor.new_full((tensor.shape[0], length), value)
                given[name] = torch.cat([extra, tensor], 1)
        if isinstance(positions := given.get("position_ids"), Tensor):
            first = torch.arange(length, device=positions.device).expand(positions.shape[0], -1)
            given["position_ids"] = torch.cat([first, positions + length], 1)
        output = self.layer(**given)
        return output if self.inside else without(output, length)


class WithoutPrompt(Holding):
    """A part of a model whose output loses the first `length` states of every item."""

    def __init__(self, layer: nn.Module, length: int) -> None:
        super().__init__(layer)
        self.length = length

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return without(self.layer(*args, **kwargs), self.length)


class Appended(Around):
    """What gives a vision transformer its first states, with a prompt after them: class tokens
    stay first.
    """

    kind: ClassVar[str] = "prompt"
    insert: Prompt

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        states: Tensor = self.layer(*args, **kwargs)
        return torch.cat([states, self.insert.rows(states)], 1)


def without(output: Any, length: int) -> Any:
    """A model's output without the first `length` states: a tensor (n, m, width), a tuple with one
    first, or a record of them.
    """
    if isinstance(output, Tensor):
        return output[:, length:]
    if isinstance(output, Mapping):
        output["last_hidden_state"] = output["last_hidden_state"][:, length:]  # type: ignore[index]
        return output
    return (output[0][:, length:], *output[1:])


def _by_name(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names."""
    signature = inspect.signature(layer.forward)
    bound = dict(signature.bind_partial(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            bound |= bound.pop(name, {})
    return bound
