"""The networks of `petra.networks`, narrow: what workloads train, as the zoo has it."""

from __future__ import annotations

import torch
from torch import Tensor

from petra.networks.events import EventGRU, EventTransformer
from petra.networks.inception_time import InceptionTime
from petra.networks.lstm_fcn import LSTMFCN
from petra.networks.patch_transformer import PatchTransformer
from petra.networks.tcn import TCN
from petra.tasks.inputs import Inputs
from petra.testing.architectures.base import CLASSES, Problem, classifier, normal, regressor

CHANNELS, LENGTH, CONTEXT, HORIZON = 3, 32, 48, 8
SERIES = normal(CHANNELS, LENGTH)
CATEGORIES = {"kind": 8, "place": 24}
NUMERIC, STATIC, EVENTS = 2, 3, 10


def inception_time() -> Problem:
    """Concatenated branches under one BatchNorm, a residual connection around three."""
    return classifier(lambda: InceptionTime(CHANNELS, CLASSES, filters=8, depth=3), SERIES)


def lstm_fcn() -> Problem:
    """Convolutions beside an LSTM whose steps are the channels."""
    return classifier(lambda: LSTMFCN(CHANNELS, LENGTH, CLASSES), SERIES)


def tcn() -> Problem:
    """Regression from the last step of dilated causal convolutions."""
    return regressor(lambda: TCN(CHANNELS, 1, filters=24, depth=3, kernel=3), SERIES, 1)


def patch_transformer() -> Problem:
    """Forecasts by attention to patches, normalised and put back on scale inside."""
    return regressor(
        lambda: PatchTransformer(CHANNELS, CONTEXT, HORIZON, layers=2, hidden=64),
        normal(CHANNELS, CONTEXT),
        CHANNELS,
        HORIZON,
    )


def events(generator: torch.Generator, n: int) -> Inputs:
    """Items of 2 events and more, padded behind, by name."""
    mask = torch.arange(EVENTS) < torch.randint(2, EVENTS + 1, (n, 1), generator=generator)
    found: dict[str, Tensor] = {
        name: torch.randint(1, size, (n, EVENTS), generator=generator) * mask
        for name, size in CATEGORIES.items()
    }
    found["numeric"] = torch.randn(n, EVENTS, NUMERIC, generator=generator) * mask[..., None]
    found["mask"] = mask
    found["static"] = torch.randn(n, STATIC, generator=generator)
    return found


def event_gru() -> Problem:
    """A GRU over embedded events, read at the last one of each item."""
    return classifier(
        lambda: EventGRU(CATEGORIES, NUMERIC, CLASSES, static=STATIC, width=24), events
    )


def event_transformer() -> Problem:
    """Attention to embedded events under a mask that comes as an input, averaged under it."""
    return classifier(
        lambda: EventTransformer(CATEGORIES, NUMERIC, CLASSES, static=STATIC, width=32), events
    )
