"""The README's picture: the files that one committed search made, and its front.

    python benchmarks/front_picture.py cifar10-resnet20

Reads ``results/NAME.json`` and writes ``docs/front.svg``: quality on validation items against
latency, areas are bytes. Needs matplotlib, which comes with the extra ``benchmarks``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHOWN = 0.08  # of quality below the best: what lost more is counted, not drawn
FRONT, OTHERS, INK = "#0d8a72", "#8f9ba8", "#6b7785"


def main() -> None:
    import matplotlib.pyplot as plt

    (name,) = sys.argv[1:]
    trials = json.loads((HERE / "results" / f"{name}.json").read_text())
    made = [t for t in trials if {"quality", "latency_ratio"} <= t["val"].keys()]
    best = max(_value(t, "quality") for t in made)
    shown = [t for t in made if _value(t, "quality") > best - SHOWN]
    plt.rcParams.update({"svg.hashsalt": name, "font.size": 11, "text.color": INK})
    figure, axes = plt.subplots(figsize=(7.6, 4))
    for colour, label, chosen in (
        (OTHERS, "tried", [t for t in shown if not t["test"]]),
        (FRONT, "on the front", [t for t in shown if t["test"]]),
    ):
        axes.scatter(
            [_value(t, "latency_ratio") for t in chosen],
            [100 * _value(t, "quality") for t in chosen],
            [_value(t, "size_bytes") / 2500 for t in chosen],
            color=colour,
            alpha=0.6,
            linewidths=0,
            label=label,
        )
    axes.annotate(
        "untouched model", (1, 100 * _value(made[0], "quality")), (0, -26),
        textcoords="offset points", ha="center",
    )  # fmt: skip
    axes.set_xlabel("latency, times the untouched model's (area: bytes)", color=INK)
    axes.set_ylabel("accuracy, %", color=INK)
    axes.tick_params(colors=INK)
    axes.grid(alpha=0.25)
    axes.spines[:].set_visible(False)
    axes.legend(loc="lower right", frameon=False, markerscale=0.5, labelcolor=INK)
    axes.set_title(
        f"{len(made)} files of one search; {len(made) - len(shown)} lie below", fontsize=11
    )
    figure.tight_layout()
    place = HERE.parent / "docs" / "front.svg"
    figure.savefig(place, transparent=True, metadata={"Date": None, "Creator": None})


def _value(trial: dict[str, Any], metric: str) -> float:
    return float(trial["val"][metric][0])


if __name__ == "__main__":
    main()
