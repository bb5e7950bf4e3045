"""The network that quantization is tested on."""

from __future__ import annotations

import pytest
import torch
from quantize_models import DigitsNet
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network trained on digits for a few steps, its training images, test images and test
    labels.
    """
    torch.manual_seed(0)
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(data.target)
    model = DigitsNet()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(100):
        rows = torch.arange(step * 64, step * 64 + 64) % 1400
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval(), x[:1400], x[1400:], y[1400:]
