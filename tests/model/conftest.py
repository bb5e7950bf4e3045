"""The model that descriptions of models are tested on."""

from __future__ import annotations

import pytest
import torch
from described_models import Net


@pytest.fixture
def original() -> Net:
    torch.manual_seed(0)
    return Net().eval()
