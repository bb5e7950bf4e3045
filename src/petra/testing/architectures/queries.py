"""Transformers around learned tokens and biases, and networks that mix tokens without attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.testing.architectures.base import CLASSES, Problem, classifier, normal
from petra.testing.architectures.images import IMAGE, conv_bn, head
from petra.testing.architectures.tokens import TOKENS, VOCABULARY, token_ids

WIDTH = 32


class Attention(nn.Module):
    """Attention with separate projections, an optional bias and an optional causal mask."""

    def __init__(self, width: int = WIDTH, heads: int = 4, *, causal: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.causal = heads, width // heads, causal
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        def heads(t: Tensor) -> Tensor:
            return t.view(*t.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

        q, k, v = heads(self.query(x)), heads(self.key(context)), heads(self.value(context))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=self.causal)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    def __init__(self, width: int = WIDTH, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, bias)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ClassToken(nn.Module):
    """Patches behind a learned token: a view of a parameter is an argument of a module."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.token, self.position = (
            nn.Parameter(torch.randn(1, 1, width)),
            nn.Parameter(torch.randn(1, 17, width)),
        )
        layer = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.token_norm, self.fc = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        token = self.token_norm(self.token.expand(x.shape[0], -1, -1))
        y = self.encoder(torch.cat([token, patches], 1) + self.position)
        logits: Tensor = self.fc(y[:, 0])
        return logits


def class_token() -> Problem:
    """A vision transformer with a class token."""
    return classifier(ClassToken, IMAGE)


class Perceiver(nn.Module):
    """Learned queries attend to the inputs, and only they go on (Jaegle et al. 2021)."""

    def __init__(self, width: int = WIDTH, queries: int = 4) -> None:
        super().__init__()
        self.project, self.queries = nn.Linear(8, width), nn.Parameter(torch.randn(queries, width))
        self.read, self.norm = Attention(width), nn.LayerNorm(width)
        self.block, self.fc = Block(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.norm(self.queries).unsqueeze(0).expand(x.shape[0], -1, -1)
        y = queries + self.read(queries, self.project(x))
        logits: Tensor = self.fc(self.block(y).mean(1))
        return logits


def learned_queries() -> Problem:
    """Cross-attention from learned queries."""
    return classifier(Perceiver, normal(TOKENS, 8))


class RelativeBias(nn.Module):
    """Attention with a learned bias by distance, kept in evaluation as several libraries do."""

    distance: Tensor

    def __init__(self, width: int = WIDTH, heads: int = 4) -> None:
        super().__init__()
        self.embed, self.table = (
            nn.Embedding(VOCABULARY, width),
            nn.Parameter(torch.randn(2 * TOKENS - 1, heads)),
        )
        steps = torch.arange(TOKENS)
        self.register_buffer(
            "distance", steps[:, None] - steps[None] + TOKENS - 1, persistent=False
        )
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, CLASSES)
        self.kept: Tensor | None = None

    def bias(self) -> Tensor:
        if self.training:
            self.kept = None
        if self.kept is None or self.training:
            self.kept = self.table[self.distance].permute(2, 0, 1).unsqueeze(0)
        return self.kept

    def forward(self, ids: Tensor) -> Tensor:
        x, bias = self.embed(ids), self.bias()
        for block in self.blocks:
            x = block(x, bias)
        logits: Tensor = self.fc(self.norm(x).mean(1))
        return logits


def relative_bias() -> Problem:
    """A cache computed from parameters."""
    return classifier(RelativeBias, token_ids)


class Decoder(nn.Module):
    """A causal language model whose output layer is its embedding; judged at the last position."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(VOCABULARY, width), nn.Embedding(TOKENS, width)
        self.blocks = nn.ModuleList(Block(width, causal=True) for _ in range(2))
        self.norm, self.unembed = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        self.unembed.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.unembed(self.norm(x))
        return logits[:, -1, :CLASSES]


def decoder() -> Problem:
    """A decoder with tied embeddings."""
    return classifier(Decoder, token_ids)


class MixerBlock(nn.Module):
    """Perceptrons over tokens and over channels in turn (Tolstikhin et al. 2021)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.channels = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.channels(self.norm2(x))
        return out


class Mixer(nn.Module):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.blocks = nn.Sequential(MixerBlock(16, width), MixerBlock(16, width))
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
        logits: Tensor = self.fc(self.norm(y).mean(1))
        return logits


def mixer() -> Problem:
    """An MLP-Mixer."""
    return classifier(Mixer, IMAGE)


class FourierBlock(nn.Module):
    """Tokens mixed by the real part of a Fourier transform, its matrices kept as buffers (Lee-Thorp
    et al. 2021).
    """

    over_tokens: Tensor
    over_width: Tensor

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        for name, size in (("over_tokens", tokens), ("over_width", width)):
            self.register_buffer(name, torch.fft.fft(torch.eye(size)) / size**0.5)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens, width = self.over_tokens, self.over_width
        mixed = tokens.real @ x @ width.real - tokens.imag @ x @ width.imag
        x = self.norm1(x + mixed)
        out: Tensor = self.norm2(x + self.mlp(x))
        return out


class FourierNet(nn.Module):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.Sequential(FourierBlock(TOKENS, width), FourierBlock(TOKENS, width))
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.blocks(self.embed(ids)).mean(1))
        return logits


def fourier() -> Problem:
    """A Fourier transform in place of attention."""
    return classifier(FourierNet, token_ids)


class EinsumMLP(nn.Module):
    """Perceptron blocks of bare parameters in einsums, some with the weight on the left."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()

        def matrix(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) / (3 * shape[0]) ** 0.5)

        self.inward, self.up, self.down = matrix(8, width), matrix(width, 64), matrix(64, width)
        self.heads, self.mix = matrix(width, 4, 8), matrix(TOKENS, TOKENS)
        self.shift, self.fc = nn.Parameter(torch.zeros(64)), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("btf,fd->btd", x, self.inward)
        x = x + torch.einsum("st,btd->bsd", self.mix, x)
        y = functional.gelu(torch.einsum("btd,de->bte", x, self.up) + self.shift)
        x = x + torch.einsum("bte,ed->btd", y, self.down)
        y = torch.einsum("btd,dhk->bthk", x, self.heads)
        logits: Tensor = self.fc(functional.relu(y.flatten(2)).mean(1))
        return logits


def einsums() -> Problem:
    """Einsums with bare parameters."""
    return classifier(EinsumMLP, normal(TOKENS, 8))


def data_parallel() -> Problem:
    """A network inside DataParallel, whose forward pass takes any arguments."""

    def make() -> nn.Module:
        return nn.DataParallel(
            nn.Sequential(
                *(conv_bn(3, 16), nn.ReLU(), conv_bn(16, 32, stride=2), nn.ReLU(), head(32))
            )
        )

    return classifier(make, IMAGE)
