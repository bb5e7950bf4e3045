"""Models whose attention is looked at."""

from __future__ import annotations

import pytest
import torch
from distilled_parts import G
from torch import Tensor, nn

from petra.tasks.classification import classification


class Encoder(nn.Module):
    """torch's own encoder, which asks its attention for no weights."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        layer = nn.TransformerEncoderLayer(8, heads, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.classifier = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.encoder(self.table(x)).mean(1))
        return logits


IDS = torch.randint(0, 12, (96, 6), generator=G)


WORDS = classification(
    (IDS, (IDS[:, 0] < 6).long()), (IDS, (IDS[:, 0] < 6).long()), (IDS, (IDS[:, 0] < 6).long())
)


def bert(layers: int = 2) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=16, num_labels=2, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(layers)
    model: nn.Module = transformers.BertForSequenceClassification(config).eval()
    return model
