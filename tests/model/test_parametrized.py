"""Computed weights become plain ones: the same outputs, a model that pickles, and an original left
alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from petra.model.copies.parametrized import fold_parametrizations


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).T


def by_hand(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


def twice(layer: nn.Module) -> nn.Module:
    return by_hand(parametrizations.spectral_norm(layer))


def pruned(layer: Any) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.5)
    prune.random_unstructured(layer, "weight", 0.2)
    prune.l1_unstructured(layer, "bias", 0.5)
    return layer


KINDS: dict[str, Callable[[Any], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "by hand": by_hand,
    "two on one weight": twice,
    "older weight_norm": torch.nn.utils.weight_norm,
    "older spectral_norm": torch.nn.utils.spectral_norm,
    "masks": pruned,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_kind_is_folded_exactly(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), KINDS[kind](nn.Linear(6, 6))).eval()
    x = torch.randn(5, 6)
    with torch.no_grad():
        model(x)
        before = model(x)
        copied = copy.deepcopy(model)
        folded = fold_parametrizations(copied)
        assert "2.weight" in folded
        assert torch.equal(copied(x), before)
        assert torch.equal(model(x), before), "the original lost its weights"
    weight = copied[2].weight
    assert type(copied[2]) is nn.Linear
    assert isinstance(weight, nn.Parameter)
    assert weight.requires_grad
    assert set(dict(copied.named_parameters())) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert torch.equal(pickle.loads(pickle.dumps(copied))(x), copied(x))  # noqa: S301
    assert fold_parametrizations(copied) == ()
    copied.load_state_dict(copied.state_dict())


def test_recurrent_weights_reach_the_kernel() -> None:
    torch.manual_seed(0)
    lstm = parametrizations.weight_norm(nn.LSTM(3, 4, batch_first=True), "weight_hh_l0").eval()
    x = torch.randn(2, 5, 3)
    before = lstm(x)[0]
    fold_parametrizations(lstm)
    assert torch.equal(lstm(x)[0], before)
    with torch.no_grad():
        lstm.weight_hh_l0.zero_()
    assert not torch.equal(lstm(x)[0], before)


def test_modes_and_what_is_frozen_stay() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)), nn.Dropout())
    model[0].requires_grad_(False)
    model[1].eval()
    fold_parametrizations(model)
    assert [m.training for m in model] == [True, False]
    assert not model[0].weight.requires_grad
