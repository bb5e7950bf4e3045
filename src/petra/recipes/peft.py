"""The usual ways of fine-tuning a transformer, as data: what a searched configuration has to beat.

Sizes are as published for BERT-base, of width 768; widths of adapters are shares of the model's
width. Whether a module helps depends on what else is trained, and for how long, so all of them are
given the same epochs and data, and all modules the same learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from petra.core.pipeline import Pipeline, StageSpec, Value


@dataclass(frozen=True)
class Share:
    """A size that is a share of the model's width, at least 1."""

    of_width: float

    def at(self, width: int) -> int:
        return max(1, round(self.of_width * width))


@dataclass(frozen=True)
class Usual:
    """A way of fine-tuning: the modules that are trained beside the head, everything where
    `modules` is None. `single` ones have one kind of module; `why` says whose it is.
    """

    why: str
    modules: Mapping[str, Value | Share] | None = field(default_factory=dict)
    single: bool = True


ADAPTER = Share(1 / 16)
OFF: Mapping[str, Value] = {
    "serial": 0,
    "parallel": 0,
    "prefix": 0,
    "lora": 0,
    "prompt": 0,
    "ia3": False,
    "bitfit": False,
}

USUAL: Mapping[str, Usual] = {
    "full fine-tuning": Usual("Devlin et al. 2019: all weights", None, single=False),
    "head only": Usual("the head on frozen features", {"head_only": True}, single=False),
    "BitFit": Usual("Ben Zaken et al. 2022: biases", {"bitfit": True}),
    "LoRA": Usual("Hu et al. 2022: rank 8 at queries and values", {"lora": 8}),
    "serial, Houlsby": Usual(
        "Houlsby et al. 2019: adapters after attention and the feed-forward network",
        {"serial": ADAPTER, "serial_at": "both"},
    ),
    "serial, Pfeiffer": Usual(
        "Pfeiffer et al. 2021: after the feed-forward network alone", {"serial": ADAPTER}
    ),
    "parallel": Usual(
        "He et al. 2022: beside the feed-forward network, scaled",
        {"parallel": ADAPTER, "scaling": 4.0},
    ),
    "prefix": Usual("Li & Liang 2021: 10 keys and values in every layer", {"prefix": 10}),
    "MAM": Usual(
        "He et al. 2022, mix and match: wide parallel adapters and short prefixes",
        {"parallel": Share(1 / 2), "scaling": 4.0, "prefix": 30},
        single=False,
    ),
    "UniPELT-like": Usual(
        "Mao et al. 2022, without their gates: an adapter, LoRA and a prefix in every layer",
        {"serial": ADAPTER, "lora": 8, "prefix": 10},
        single=False,
    ),
}
"""By name, in the order of tables."""


def usual(
    name: str,
    width: int,
    *,
    epochs: int = 20,
    lr: float = 1e-4,
    full_lr: float = 2e-5,
    batch_size: int = 32,
) -> Pipeline:
    """The pipeline of one of `USUAL` for a model of that width. `full_lr` is the learning rate
    where all weights are trained. KeyError for another name.
    """
    training: dict[str, Value] = {"epochs": epochs, "optimizer": "adamw", "batch_size": batch_size}
    modules = USUAL[name].modules
    if modules is None:
        return Pipeline((StageSpec("tune", {**training, "lr": full_lr}),))
    sizes = {k: v.at(width) if isinstance(v, Share) else v for k, v in modules.items()}
    return Pipeline((StageSpec("adapt", {**OFF, **sizes, **training, "lr": lr}),))
