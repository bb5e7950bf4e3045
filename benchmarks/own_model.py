"""What a first run on somebody's own model gives, all settings left alone:

    python benchmarks/own_model.py

A 1-D CNN on made-up waves (5 classes, 140 samples), trained on the spot; the only wish is
`size <= 60 kB`, within three minutes. Writes what was found when as `results/own-model.md`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from host import heading
from torch import Tensor, nn

import petra
from petra.core.trial import Trial
from petra.listener import Clock, Silent

HERE = Path(__file__).parent
WISH = "size <= 60 kB"


def waves(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sines of five frequencies at any phase, in noise."""
    labels = torch.randint(0, 5, (count,), generator=generator)
    t = torch.linspace(0, 1, 140)
    phase = 2 * torch.pi * torch.rand(count, 1, generator=generator)
    clean = torch.sin(2 * torch.pi * (2 + 1.5 * labels[:, None]) * t + phase)
    noisy = clean + 0.6 * torch.randn(count, 140, generator=generator)
    return noisy[:, None], labels


def block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, 7, padding=3), nn.BatchNorm1d(outputs), nn.ReLU()
    )


def trained(x: Tensor, y: Tensor) -> nn.Module:
    """The network, after six epochs of Adam."""
    torch.manual_seed(0)
    model = nn.Sequential(
        block(1, 32), nn.MaxPool1d(2), block(32, 64), nn.MaxPool1d(2), block(64, 64),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(6):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


class Diary(Silent):
    """When each trial ended, and what it was."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.lines: list[str] = []
        self.feasible_s: float | None = None

    def finished(self, trial: Trial, clock: Clock) -> None:
        at = time.monotonic() - self.began
        if trial.status == "complete" and self.feasible_s is None:
            self.feasible_s = at
        known = trial.metrics
        size = f"{known['size_bytes'].mean / 1e3:.1f}" if "size_bytes" in known else ""
        quality = f"{known['quality'].mean:.3f}" if "quality" in known else ""
        latency = f"{known['latency_ratio'].mean:.2f}" if "latency_ratio" in known else ""
        stages = " -> ".join(stage.kind for stage in trial.pipeline)
        self.lines.append(
            f"| {trial.number} | {at:.0f} | {trial.origin.name} | {stages} | {trial.status} |"
            f" {quality} | {latency} | {size} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", default="3 min")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    train, val, test = (waves(n, generator) for n in (3000, 600, 600))
    model, diary = trained(*train), Diary()
    with tempfile.TemporaryDirectory() as place:
        study = petra.compress(
            model,
            petra.classification(train, val, test),
            constraints=[WISH],
            budget=options.time,
            workdir=Path(place) / "study",
            listener=diary,
        )
        table = str(study.front)
    text = [
        *heading("The first run on one's own model", "python benchmarks/own_model.py"),
        f"- `{WISH}`, {options.time}, everything else left alone; the first model within it after"
        f" {diary.feasible_s or float('nan'):.0f} s, the untouched model's measurement included",
        "",
        "| trial | s | from | pipeline | status | quality | latency | kB |",
        "|---|---|---|---|---|---|---|---|",
        *diary.lines,
        "",
        "```",
        table,
        "```",
    ]
    (HERE / "results" / "own-model.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
