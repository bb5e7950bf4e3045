"""A small real study of scikit-learn's digits, and its bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import petra
from petra.study import Study
from petra.tasks.base import Task

RAW = "grey values of 0 to 16 over 16"
CLASSES = [f"digit {i}" for i in range(10)]
FILES = {
    *("model.onnx", "pipeline.yaml", "metrics.json", "parity.json", "evidence.json"),
    *("MODEL_CARD.md", "sample_inputs.npz", "sample_outputs.npz", "SHA256SUMS"),
}


def digits(**said: Any) -> tuple[nn.Module, Task]:
    """A perceptron behind a normalisation, trained for a second, and its task."""
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    parts = [(x[part], y[part]) for part in (slice(600), slice(600, 900), slice(900, 1200))]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
    model = petra.data.normalised(network, (x[:600], y[:600]))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:600]), y[:600]).backward()
        optimizer.step()
    return model.eval(), petra.classification(*parts, **said)


def searched(directory: Path) -> Study:
    """The untouched model and its int8 form, confirmed; of which classes are named, and nobody
    said what the inputs went through.
    """
    model, task = digits(classes=CLASSES)
    return petra.compress(
        model,
        task,
        objectives=["quality", "size"],
        space={"initial": [["quantize.static"]], "recipes": False},
        budget={"trials": 1},
        workdir=directory,
    )


def reseal(bundle: Path) -> None:
    """Make the checksums of a bundle those of its files as they are: what a forger does."""
    metrics = json.loads((bundle / "metrics.json").read_text())
    for file in metrics["files"]:
        content = (bundle / file["name"]).read_bytes()
        file |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "metrics.json").write_text(json.dumps(metrics))
    lines = [
        f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n"
        for f in sorted(bundle.iterdir())
        if f.name != "SHA256SUMS"
    ]
    (bundle / "SHA256SUMS").write_text("".join(lines))


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def flipped(content: bytes, place: int, bit: int = 0) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)
