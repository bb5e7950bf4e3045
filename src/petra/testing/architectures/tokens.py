"""Perceptrons and transformers written here, and models whose modules are wired in odd ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.testing.architectures.base import CLASSES, Problem, classifier, normal

VOCABULARY, TOKENS = 64, 12


def token_ids(generator: torch.Generator, n: int) -> Tensor:
    """Token ids (n, TOKENS), int64, none below 5: those are for padding and the like."""
    return torch.randint(5, VOCABULARY, (n, TOKENS), generator=generator)


def mlp() -> Problem:
    """Linear layers only, with a BatchNorm over features between two of them."""
    return classifier(
        lambda: nn.Sequential(
            *(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.GELU()),
            *(
                nn.Linear(64, 48),
                nn.ReLU(),
                nn.Linear(48, 32),
                nn.Sigmoid(),
                nn.Linear(32, CLASSES),
            ),
        ),
        normal(16),
    )


class RMSBlock(nn.Module):
    """Pre-norm attention with one projection for queries, keys and values, and a gated MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.proj = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Linear(width, width, bias=False),
        )
        self.gate_up, self.down = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        out: Tensor = x + self.down(functional.silu(gate) * up)
        return out


class FusedTransformer(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.position = nn.Parameter(torch.randn(1, TOKENS, width))
        self.blocks = nn.ModuleList(RMSBlock(width, 4) for _ in range(2))
        self.norm, self.fc = nn.RMSNorm(width), nn.Linear(width, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.position
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.fc(self.norm(x).mean(1))
        return logits


def fused_qkv() -> Problem:
    """A causal transformer with RMSNorm, fused QKV and a gated MLP."""
    return classifier(FusedTransformer, token_ids)


class EncoderClassifier(nn.Module):
    """`nn.TransformerEncoder` over a feature sequence and an embedded token, given as a tuple."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.project, self.embed = nn.Linear(8, width), nn.Embedding(VOCABULARY, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 64, batch_first=True, norm_first=True, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, features: Tensor, ids: Tensor) -> Tensor:
        x = self.encoder(self.project(features) + self.embed(ids))
        logits: Tensor = self.fc(x[:, 0])
        return logits


def torch_transformer() -> Problem:
    """torch's own encoder layers; two inputs in a tuple."""
    features = normal(TOKENS, 8)
    return classifier(
        EncoderClassifier, lambda generator, n: (features(generator, n), token_ids(generator, n))
    )


class ManyOutputs(nn.Module):
    """A dict of outputs: logits, a regression, a hidden layer; the classifier is first module."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier, self.side = nn.Linear(24, CLASSES), nn.Linear(48, 2)
        self.first, self.hidden = nn.Linear(16, 48), nn.Linear(48, 24)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        h = functional.relu(self.first(torch.cat([left, right], 1)))
        features = self.hidden(h)
        return {
            "side": self.side(h),
            "logits": self.classifier(functional.relu(features)),
            "features": features,
        }


def multi_output() -> Problem:
    """Two named inputs, three named outputs."""
    halves = normal(8)
    return classifier(
        ManyOutputs,
        lambda generator, n: {"left": halves(generator, n), "right": halves(generator, n)},
    )


class SharedWeights(nn.Module):
    """One block applied twice, two layers of one weight, an embedding that is the output too."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.block = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)
        )
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)
        self.b.weight = self.a.weight
        self.tied = nn.Linear(width, VOCABULARY, bias=False)
        self.tied.weight = self.embed.weight
        self.mixed, self.fc = nn.Linear(VOCABULARY, 48), nn.Linear(48, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.block(x)
        x = x + self.block(x)
        x = self.b(functional.relu(self.a(x))).mean(1)
        logits: Tensor = self.fc(functional.relu(self.mixed(self.tied(x))))
        return logits


def shared_weights() -> Problem:
    """A block used twice, and tied weights."""
    return classifier(SharedWeights, token_ids)
