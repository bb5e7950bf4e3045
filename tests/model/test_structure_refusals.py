"""What no description can say, what it may not import, and hashes of models."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from described_models import (
    CHANGES,
    Net,
    changed,
    channels_last,
    freeze,
    partly_train,
)
from torch import nn
from torch.nn.utils import parametrize

from petra.core.errors import ArtifactError, PetraError
from petra.model.description.differences import NotDescribable, describe, rebuild, weights
from petra.model.description.state_hash import state_hash

# -- what is refused -------------------------------------------------------------------------------


def foreign_class(model: Any) -> None:
    class Mine(nn.Linear):
        pass

    model.head = Mine(5, 7)


def closure(model: Any) -> None:
    model.blocks[0].activation = lambda x: torch.relu(x)


def other_partial(model: Any) -> None:
    model.blocks[0].cut = functools.partial(torch.clamp, min=1.0)


def hook(model: Any) -> None:
    model.stem.register_forward_hook(lambda m, i, o: 2 * o)


def parametrization(model: Any) -> None:
    parametrize.register_parametrization(model.stem, "weight", nn.Softplus())


def unregistered_tensor(model: Any) -> None:
    model.extra = torch.ones(3)


def other_reference(model: Any) -> None:
    model.layers = [nn.Linear(5, 7)]


def new_recurrent_layer(model: Any) -> None:
    model.rnn = nn.LSTM(6, 5, batch_first=True)


def overlapping_memory(model: Any) -> None:
    both = torch.randn(16)
    model.blocks[0].bn1.weight.data, model.blocks[0].bn1.bias.data = both[:8], both[4:12]


def sparse_buffer(model: Any) -> None:
    model.register_buffer("mask", torch.eye(3).to_sparse())


def graph_module(model: Any) -> None:
    model.blocks = torch.fx.symbolic_trace(model.blocks)


REFUSED: list[tuple[Callable[[Any], None], str]] = [
    (foreign_class, "layer 'head'.*Mine"),
    (closure, "layer 'blocks.0': attribute 'activation'"),
    (other_partial, "layer 'blocks.0': attribute 'cut'"),
    (hook, "layer 'stem': attribute '_forward_hooks"),
    (parametrization, "layer 'stem'"),
    (unregistered_tensor, "attribute 'extra'"),
    (other_reference, "attribute 'layers'"),
    (new_recurrent_layer, "layer 'rnn'"),
    (overlapping_memory, "blocks.0.bn1"),
    (sparse_buffer, "mask"),
    (graph_module, "layer 'blocks'"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_described(
    original: Net, change: Callable[[Any], None], message: str
) -> None:
    model = changed(original)
    change(model)
    with pytest.raises(NotDescribable, match=message) as caught:
        describe(model, original)
    assert isinstance(caught.value, PetraError)


def test_tensors_of_another_model_are_refused(original: Net) -> None:
    model = changed(original)
    model.stem.weight.data += 1
    description, state = describe(model, original), weights(model)
    missing = {k: v for k, v in state.items() if k != "stem.weight"}
    for wrong in (missing, {**state, "surplus": torch.zeros(1)}):
        with pytest.raises(ArtifactError, match=r"stem.weight|surplus"):
            rebuild(original, description, wrong)


def test_a_description_cannot_import_what_it_likes(original: Net) -> None:
    description = describe(original, original)
    for name in (
        "os:PathLike",
        "subprocess:Popen",
        "torch.nn.modules.linear:Absent",
        "petra.core.errors:PetraError",
    ):
        evil = {**description, "modules": [{"path": "head", "class": name}]}
        with pytest.raises(NotDescribable, match="class"):
            rebuild(original, evil, weights(original))


# -- fingerprints ----------------------------------------------------------------------------------


NO_CHANGE = (freeze, channels_last, partly_train)  # of what the model is


BY_TYPE_ONLY = (other_partial,)  # opaque values of one type and length look alike


@pytest.mark.parametrize("change", CHANGES + [c for c, _ in REFUSED])
def test_fingerprints_see_changes(original: Net, change: Callable[[Any], None]) -> None:
    model = copy.deepcopy(original)
    change(model)
    unseen = change in NO_CHANGE + BY_TYPE_ONLY
    assert (state_hash(model) == state_hash(original)) == unseen


def test_fingerprints_see_one_bit(original: Net) -> None:
    model = copy.deepcopy(original)
    assert state_hash(model) == state_hash(original)
    with torch.no_grad():
        model.head.weight.view(torch.int32)[0, 0] ^= 1
    assert state_hash(model) != state_hash(original)
