"""Hugging Face's state spaces and time-series transformers: several inputs, most with a
`forward(**kwargs)` inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petra.tasks.inputs import Inputs
from petra.testing.architectures.base import CLASSES, Problem, classifier, normal
from petra.testing.architectures.hugging_face import STD, dict_of, made
from petra.testing.architectures.tokens import VOCABULARY, token_ids

CONTEXT, LAGS, HORIZON = 16, (1, 2), 4
_SERIES: Mapping[str, Any] = {
    "prediction_length": HORIZON,
    "context_length": CONTEXT,
    "lags_sequence": list(LAGS),
    "num_time_features": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "d_model": 32,
    "init_std": STD,
    "use_cache": False,
}


class Averaged(nn.Module):
    """A backbone called by any keywords; its hidden states are averaged and classified."""

    def __init__(self, model: nn.Module, width: int, **options: object) -> None:
        super().__init__()
        self.model, self.classifier, self.options = model, nn.Linear(width, CLASSES), options

    def forward(self, **inputs: Tensor) -> Tensor:
        states = self.model(**inputs, **self.options).last_hidden_state
        logits: Tensor = self.classifier(states.mean(1))
        return logits


def mamba() -> Problem:
    """Selective state spaces over tokens, scanned step by step."""
    make = made(
        "Mamba", "Model", vocab_size=VOCABULARY, hidden_size=32, state_size=4, num_hidden_layers=1,
        use_cache=False, initializer_range=STD,
    )  # fmt: skip
    return classifier(
        lambda: Averaged(make(), 32, use_cache=False), dict_of("input_ids", _few_tokens), gain=1.0
    )


def _few_tokens(generator: torch.Generator, n: int) -> Tensor:
    return token_ids(generator, n)[:, :6]  # each is a step of the scan


def patchtsmixer() -> Problem:
    """Perceptrons over patches, features and time, with gates."""
    make = made(
        "PatchTSMixer", "ForTimeSeriesClassification", num_input_channels=2, context_length=32,
        patch_length=4, patch_stride=4, d_model=16, num_layers=2, num_targets=CLASSES, init_std=STD,
    )  # fmt: skip
    return classifier(make, dict_of("past_values", normal(32, 2)), gain=1.0)


def _forecast(generator: torch.Generator, n: int) -> Inputs:
    past = CONTEXT + max(LAGS)
    return {
        "past_values": torch.randn(n, past, generator=generator),
        "past_time_features": torch.randn(n, past, 2, generator=generator),
        "past_observed_mask": torch.ones(n, past),
        "future_values": torch.randn(n, HORIZON, generator=generator),
        "future_time_features": torch.randn(n, HORIZON, 2, generator=generator),
    }


def time_series_transformer() -> Problem:
    """An encoder-decoder over lags of a series and features of its time, scaled by its own mean."""
    make = made("TimeSeriesTransformer", "Model", **_SERIES)
    return classifier(lambda: Averaged(make(), 32), _forecast, gain=1.0)
