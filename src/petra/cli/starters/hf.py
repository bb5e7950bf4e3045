"""A Hugging Face classifier of text, and its data, as petra calls them: see study.yaml.

It runs as it is, on a small untrained DistilBERT and made-up tokens; it needs the package
transformers (pip install 'petra[text]'). Replace what is marked with YOURS.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

import petra

CLASSES, WORDS, LENGTH = 2, 200, 16


def texts() -> tuple[dict[str, Tensor], Tensor]:
    """Token numbers and mask by name, int64 (n, 16) each, and classes (n,).

    YOURS: what the model's tokenizer returns, as tensors:

        tokenizer = AutoTokenizer.from_pretrained("folder")
        encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=64,
                            return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}, labels
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (1500,), generator=generator)
    words = torch.randint(10, WORDS, (len(labels), LENGTH), generator=generator)
    telling = torch.rand(words.shape, generator=generator) < 0.25
    ids = torch.where(telling, 1 + labels[:, None], words)
    long = torch.randint(6, LENGTH + 1, (len(labels), 1), generator=generator)
    mask = (torch.arange(LENGTH) < long).long()
    return {"input_ids": ids * mask, "attention_mask": mask}, labels


def parts() -> Any:
    """Train, val and test, always the same. YOURS: your own three splits, where you have them."""
    inputs, labels = texts()
    return petra.data.split(inputs, labels, stratify=labels)


def task() -> petra.Task:
    """What the network is for."""
    return petra.classification(*parts())


def model() -> nn.Module:
    """The fine-tuned network.

    YOURS: AutoModelForSequenceClassification.from_pretrained("folder") instead of all this.
    """
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=WORDS, dim=64, hidden_dim=128, n_layers=2, n_heads=4, num_labels=CLASSES,
        max_position_embeddings=LENGTH, dropout=0.0, attention_dropout=0.0, pad_token_id=0,
    )  # fmt: skip
    network: nn.Module = DistilBertForSequenceClassification(config)
    inputs, labels = parts()[0]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(4):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            scores = network(**{name: values[batch] for name, values in inputs.items()}).logits
            nn.functional.cross_entropy(scores, labels[batch]).backward()
            optimizer.step()
    return network.eval()
