"""A network that predicts numbers from a table, and its data, as petra calls them: see study.yaml.

It runs as it is, on made-up rows. Replace what is marked with YOURS.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import petra

FEATURES = 12


def table() -> tuple[Tensor, Tensor]:
    """Inputs (n, 12) and numbers (n, 1) to predict.

    YOURS: for example frame = petra.data.read_csv("rows.csv"), then petra.data.numbers(frame,
    columns) for both. Images and series do as well.
    """
    generator = torch.Generator().manual_seed(0)
    x = 10 + 3 * torch.randn(4000, FEATURES, generator=generator)
    z = (x - 10) / 3
    y = z[:, :1] * z[:, 1:2] + torch.sin(2 * z[:, 2:3]) + z[:, 3:].mean(1, keepdim=True)
    return x, y + 0.1 * torch.randn(len(x), 1, generator=generator)


def parts() -> Any:
    """Train, val and test, always the same. YOURS: your own three splits, where you have them."""
    return petra.data.split(*table())


def task() -> petra.Task:
    """What the network is for: it is judged by its root mean square error unless you give another
    metric, such as metric="mae".
    """
    return petra.regression(*parts())


def model() -> nn.Module:
    """The trained network, with the normalisation of its inputs inside, so that both ship.

    YOURS: your own network, and load_state_dict instead of training.
    """
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
    )
    inputs, targets = parts()[0]
    network: nn.Module = petra.data.normalised(layers, (inputs, targets))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(20):
        for batch in torch.randperm(len(targets)).split(64):
            optimizer.zero_grad()
            nn.functional.mse_loss(network(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return network.eval()
