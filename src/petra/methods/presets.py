"""Spaces by name: ranges of stages' parameters as a study file would have them, as data.

A user's own ranges, and stages that a user names, come before a preset's. Of a range counts what
the model, the task and the runtime allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petra.core.errors import ConfigError, did_you_mean
from petra.core.text import shown


@dataclass(frozen=True)
class Preset:
    """`ranges` by stage and parameter, as under ``space.stages``; `without` are stages that are
    left out unless somebody asks for them, and why. Where `only` names stages, there are no others
    but those that somebody asks for.
    """

    ranges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()


_LR = {"lr": [1e-4, 1e-2]}
_PRECISE = {"exclude": ["ends", "last"]}
_RANKS = {
    "ratio": [0.5, 0.8],
    "energy": [0.95, 0.999],
    "explained_variance": [0.95, 0.999],
    "quantile": [0.2, 0.5],
    "absolute_sum": [0.8, 0.95],
    "budget": [0.6, 0.9],
}

CONSERVATIVE = Preset(
    ranges={
        "tune": {"penalty": "none", "mixup": 0.0, **_LR},
        "distill": {"penalty": "none", "mixup": 0.0, **_LR},
        "prune.depth": {"blocks": 1},
        "prune.heads": {"ratio": [0.05, 0.25]},
        "prune.structured": {"ratio": [0.05, 0.3], **_LR},
        "prune.recurrent": {"ratio": [0.05, 0.3]},
        "prune.unstructured": {"sparsity": [0.3, 0.6]},
        "lowrank.svd": {**_RANKS, **_LR},
        "lowrank.tucker": _RANKS,
        "quantize.static": {**_PRECISE, "observer": "minmax", "samples": [512, 1024]},
        "quantize.qat": {**_PRECISE, "lr": [1e-5, 2e-3]},
        "quantize.dynamic": {"exclude": ["last", "ends"]},
        "quantize.weights": {"bits": [8, 16]},
    },
    without={
        "lowrank.cur": "the preset conservative leaves it out: of all low ranks the best has less"
        " error (SVD)",
        "quantize.half": "the preset conservative leaves it out: 8 bits of precision are few for"
        " values",
    },
)
"""Gentler than usual, for tasks whose quality is an error: outputs stay precise, nothing that
calibration shows is clipped, and a cut takes a third at most.
"""

AUTOPEFT = Preset(
    ranges={
        "adapt": {
            "serial_at": "feed_forward",
            "scaling": 4.0,
            "lora": 0,
            "prompt": 0,
            "ia3": False,
            "bitfit": False,
            "activation": "relu",
            "dropout": 0.0,
            "epochs": 20,
            "optimizer": "adamw",
            "lr": 1e-4,
            "batch_size": 32,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "loss": "default",
            "label_smoothing": 0.0,
            "penalty": "none",
            "mixup": 0.0,
        },
    },
    only=("adapt",),
)
"""The space of AutoPEFT (Zhou et al. 2024, arXiv 2301.12132): serial adapters, parallel adapters
and prefixes, each of a size from none to the model's width, and a bit for every block; 5.5 million
configurations of BERT-base. Training is as published (but for a cosine in place of a line), and
not searched.
"""

PRESETS: Mapping[str, Preset] = {"conservative": CONSERVATIVE, "autopeft": AUTOPEFT}


def preset_of(name: str) -> Preset:
    """The preset of that name, one that changes nothing for ''. Raises ConfigError for another."""
    if name and name not in PRESETS:
        raise ConfigError(
            f"space.preset: there is no preset {shown(name)}", hint=did_you_mean(name, PRESETS)
        )
    return PRESETS[name] if name else Preset()
