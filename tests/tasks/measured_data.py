"""Items, labels and predictions that losses and scorers are tried on."""

from __future__ import annotations

import torch
from torch.nn import functional

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(60, 3, generator=G), torch.randint(0, 3, (60,), generator=G)
LOGITS = torch.randn(60, 3, generator=G) + 2 * functional.one_hot(Y, 3)
SPLITS = ((X, Y), (X, Y), (X, Y))
VALUES = ((X, X[:, 0]), (X, X[:, 0]), (X, X[:, 0]))
