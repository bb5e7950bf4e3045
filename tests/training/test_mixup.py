"""Mixup: every item is a mixture of two of its batch, and the loss knows both targets and their
shares.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from petra.training.mixup import Mixup


def test_items_are_mixtures_in_the_shares_kept() -> None:
    x = {"a": torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), "b": torch.arange(6.0)}
    mixup = Mixup(1.0, seed=3)
    mixed = mixup(x, torch.Generator().manual_seed(1))
    assert isinstance(mixed, dict)
    assert sorted(mixup.order.tolist()) == list(range(6))
    assert 0 < mixup.share < 1
    for i, j in enumerate(mixup.order.tolist()):
        for name in x:
            assert torch.allclose(
                mixed[name][i], mixup.share * x[name][i] + (1 - mixup.share) * x[name][j]
            )


def test_the_loss_is_cross_entropy_with_mixed_labels() -> None:
    """For cross-entropy, mixing the losses equals the loss against mixed one-hot labels."""
    g = torch.Generator().manual_seed(0)
    logits, target = torch.randn(8, 4, generator=g), torch.randint(0, 4, (8,), generator=g)
    mixup = Mixup(0.4, seed=0)
    mixup(torch.zeros(8, 1), g)
    hot = functional.one_hot(target, 4).float()
    labels = mixup.share * hot + (1 - mixup.share) * hot[mixup.order]

    def against(y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y)

    assert torch.allclose(mixup.loss(against, target), functional.cross_entropy(logits, labels))


def test_shares_follow_the_beta_distribution() -> None:
    """Beta(a, a) has mean 1/2 and variance 1 / (8 a + 4)."""
    for alpha in (0.2, 1.0, 4.0):
        mixup, shares, g = Mixup(alpha, seed=1), [], torch.Generator().manual_seed(0)
        for _ in range(4000):
            mixup(torch.zeros(2, 1), g)
            shares.append(mixup.share)
        drawn = torch.tensor(shares)
        assert abs(float(drawn.mean()) - 0.5) < 0.03
        assert abs(float(drawn.var()) * (8 * alpha + 4) - 1) < 0.1


def test_a_seed_gives_the_same_mixtures() -> None:
    x = torch.randn(5, 2)
    drawn = [Mixup(1.0, seed=s)(x, torch.Generator().manual_seed(0)) for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])  # type: ignore[arg-type]
    assert not torch.equal(drawn[0], drawn[2])  # type: ignore[arg-type]
