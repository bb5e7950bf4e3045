"""torch's own transformers with the masks that people give them: padding, causal, both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petra.testing.architectures.base import CLASSES, Problem, classifier, normal
from petra.testing.architectures.tokens import TOKENS, VOCABULARY, token_ids

PADDING, WIDTH = 0, 32


def _layer(*, norm_first: bool = False, batch_first: bool = True) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=batch_first, norm_first=norm_first)


def padded_ids(generator: torch.Generator, n: int) -> Tensor:
    """Token ids (n, TOKENS) of sentences of 3 tokens and more, padded at the end."""
    lengths = torch.randint(3, TOKENS + 1, (n, 1), generator=generator)
    return token_ids(generator, n).where(torch.arange(TOKENS) < lengths, PADDING)


class Padded(nn.Module):
    """The mean over all positions, padded ones included, which torch's fused layers make zero."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH, padding_idx=PADDING)
        self.encoder = nn.TransformerEncoder(_layer(), 2)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.encoder(self.embed(ids), src_key_padding_mask=ids == PADDING)
        logits: Tensor = self.fc(x.mean(1))
        return logits


def padding_mask() -> Problem:
    """Encoder layers under a padding mask, pooled over padded positions too."""
    return classifier(Padded, padded_ids)


class Causal(nn.Module):
    """A mask that is a buffer, in time-major order, and padding beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.encoder = nn.TransformerEncoder(
            _layer(norm_first=True, batch_first=False), 2, nn.LayerNorm(WIDTH)
        )
        self.fc = nn.Linear(WIDTH, CLASSES)
        self.register_buffer(
            "mask", nn.Transformer.generate_square_subsequent_mask(TOKENS), persistent=False
        )

    def forward(self, ids: Tensor) -> Tensor:
        padding = torch.zeros(ids.shape).masked_fill(ids == PADDING, float("-inf"))
        x = self.encoder(
            self.embed(ids).transpose(0, 1), mask=self.mask, src_key_padding_mask=padding
        )
        logits: Tensor = self.fc(x[-1])
        return logits


def causal_encoder() -> Problem:
    """A decoder-only language model as torch's encoder: causal and padding masks, time first."""
    return classifier(Causal, padded_ids)


class Translator(nn.Module):
    """`nn.Transformer` whole: the mask of its decoder is made in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.embed = nn.Linear(8, WIDTH), nn.Embedding(VOCABULARY, WIDTH)
        self.transformer = nn.Transformer(WIDTH, 4, 1, 2, 64, batch_first=True)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        x = self.transformer(self.project(source), self.embed(target), tgt_mask=mask)
        logits: Tensor = self.fc(x[:, -1])
        return logits


def encoder_decoder() -> Problem:
    """torch's encoder-decoder with a causal decoder; two named inputs."""
    features = normal(10, 8)
    return classifier(
        Translator, lambda g, n: {"source": features(g, n), "target": token_ids(g, n)}
    )


class Decoder(nn.Module):
    """`nn.TransformerDecoder` over a convolution's memory, with a boolean mask (captioning)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embed = nn.Conv1d(3, WIDTH, 4, stride=4), nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerDecoderLayer(
            WIDTH, 4, 64, batch_first=True, norm_first=True, activation="gelu"
        )
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, series: Tensor, ids: Tensor) -> Tensor:
        n = ids.shape[1]
        mask = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)
        memory = self.conv(series).transpose(1, 2)
        x = self.decoder(
            self.embed(ids), memory, tgt_mask=mask, tgt_key_padding_mask=ids == PADDING
        )
        logits: Tensor = self.fc(x[:, -1])
        return logits


def captioning() -> Problem:
    """A causal decoder over the memory of a convolution; two inputs in a tuple."""
    series = normal(3, 32)
    return classifier(Decoder, lambda g, n: (series(g, n), padded_ids(g, n)))


class CachedBias(nn.Module):
    """Window attention, its relative position bias looked up once and kept, as in Swin, BEiT."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, WIDTH // 4
        self.norm, self.qkv, self.proj = (
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )
        self.bias_table = nn.Parameter(torch.randn(2 * TOKENS - 1, self.num_heads))
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH)
        )
        self.bias: Tensor | None = None
        self.attention: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        if self.bias is None:
            places = torch.arange(t)
            self.bias = self.bias_table[places[:, None] - places + t - 1].permute(2, 0, 1)
        q, k, v = (
            self.qkv(self.norm(x))
            .reshape(n, t, 3, self.num_heads, self.head_dim)
            .permute(2, 0, 3, 1, 4)
        )
        self.attention = torch.softmax(q @ k.transpose(-2, -1) / self.head_dim**0.5 + self.bias, -1)
        x = x + self.proj((self.attention @ v).transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(x)
        return out


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.Sequential(CachedBias(), CachedBias())
        self.fc = nn.Linear(WIDTH, CLASSES)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.mix = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.blocks(self.embed(ids))
        pooled, self.maps = self.mix(self.token.expand(x.shape[0], -1, -1), x, x)
        logits: Tensor = self.fc(pooled[:, 0])
        return logits


def cached_bias() -> Problem:
    """Position biases looked up once, attention weights kept, a class token as an argument."""
    return classifier(Remembering, token_ids)
