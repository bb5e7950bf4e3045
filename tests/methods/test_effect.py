"""Stages that would change next to nothing refuse, relative to what was asked, and say what holds
the rest.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage
from petra.methods.effect import LEAST, check_effect
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.prune.structured import StructuredPrune
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.methods.quantize.qat import QuantizationAwareTrain
from petra.methods.quantize.static import StaticQuantize
from petra.methods.quantize.weights import WeightQuantize
from petra.tasks.classification import classification


class Mostly(nn.Module):
    """A recurrent layer with nearly all weights and arithmetic, and a small perceptron behind
    it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.hidden, self.head = (
            nn.LSTM(8, 48, batch_first=True),
            nn.Linear(48, 16),
            nn.Linear(16, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.hidden(self.rnn(x)[0][:, -1])))
        return out


def apply(stage: Stage, model: nn.Module, x: Tensor) -> StageTrace:
    task = classification(*[(x, torch.arange(len(x)) % 4)] * 3)
    return stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=0))[1]


@pytest.mark.parametrize(
    ("stage", "says", "holds"),
    [
        (
            StaticQuantize(samples=32),
            "quantizes 1.0% of the multiply-accumulates",
            "99%: rnn: aten.lstm",
        ),
        (
            QuantizationAwareTrain(epochs=1, samples=32),
            "quantizes 1.0% of the multiply-accumulates",
            "99%: rnn: aten.lstm",
        ),
        (SVDDecompose(ratio=0.3), "of the parameters", "LSTM layers are not decomposed"),
        (
            StructuredPrune(ratio=0.4, round_to=4),
            "of the model",
            "rnn: LSTM layers are not treated",
        ),
    ],
)
def test_next_to_nothing_is_refused_with_the_shares(stage: Stage, says: str, holds: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(StageRefused) as refusal:
        apply(stage, Mostly().eval(), torch.randn(32, 8, 8))
    assert says in refusal.value.message
    assert holds in (refusal.value.hint or "")


@pytest.mark.parametrize("stage", [DynamicQuantize(), WeightQuantize()])
def test_codes_of_a_recurrent_layer_are_worth_it(stage: Stage) -> None:
    trace = apply(stage, Mostly().eval(), torch.randn(8, 8, 8))
    assert "rnn" in trace.touched


def test_a_small_ratio_may_do_little() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 4)
    )
    for ratio in (0.01, 0.05):
        trace = apply(StructuredPrune(ratio=ratio, round_to=1), model.eval(), torch.randn(32, 16))
        assert trace.details["removed_channels"] == 200 * ratio


def test_layers_kept_in_float_on_request_do_not_count() -> None:
    """What is left to quantize is a small part of the model, and nearly all that was asked for."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 4)
    ).eval()
    trace = apply(StaticQuantize(samples=32, exclude="2"), model, torch.randn(32, 16))
    assert 0 < float(str(trace.details["share_of_macs_8_bit"])) < LEAST


@pytest.mark.parametrize(
    ("done", "asked", "refused"),
    [
        (0.051, 1.0, False),
        (0.049, 1.0, True),
        (0.049, 0.3, True),
        (0.01, 0.05, False),
        (0.001, 0.05, True),
    ],
)
def test_the_least_is_five_percent_or_a_sixth_of_what_is_asked(
    done: float, asked: float, refused: bool
) -> None:
    if refused:
        with pytest.raises(StageRefused, match=r"removes \d.\d% of the weights"):
            check_effect("removes", done, "weights", asked=asked, rest={"a: a layer of stone": 0.9})
    else:
        check_effect("removes", done, "weights", asked=asked, rest={})
