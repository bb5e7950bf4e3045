"""Which method when: by the kind of model and by what is wanted, where to start.

One list of records for the terminal (`petra methods`), the documentation and whoever else gives
advice. What a search tries first by itself is in `petra.recipes.portfolio`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from petra.core.pipeline import Pipeline, StageSpec

CONVOLUTIONAL = "convolutional network (images, series)"
TRANSFORMER = "transformer (text, patches, events)"
RECURRENT = "recurrent network (GRU, LSTM, RNN)"
VALUES = "regression or forecast, any network"
ANY = "any network"


@dataclass(frozen=True)
class Advice:
    """For a kind of model and an aim, the stages to start with, and what to know about them.

    `start` may be put under ``space.initial`` of a study file as it is; its stages, under
    ``space.stages``.
    """

    model: str
    aim: str
    start: Pipeline
    words: str

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "model": self.model, "aim": self.aim, "start": self.start.as_list(),
            "words": self.words,
        }  # fmt: skip


def _start(*stages: str | StageSpec) -> Pipeline:
    return Pipeline(tuple(StageSpec(s) if isinstance(s, str) else s for s in stages))


_SMOOTH = StageSpec("quantize.static", {"equalize": "smooth"})
_FOUR_BITS = StageSpec("quantize.weights", {"bits": 4})
_HALF_BYTES = StageSpec("quantize.weights", {"bits": 16})
_SOME_FLOAT = StageSpec("quantize.static", {"keep_float": 2})

GUIDE: tuple[Advice, ...] = (
    Advice(
        CONVOLUTIONAL, "smaller and faster, without training", _start("quantize.static"),
        "whole numbers instead of fractions: a quarter of the bytes, on most CPUs two to three"
        " times the speed, some tenths of a point",
    ),
    Advice(
        CONVOLUTIONAL, "the same, where that loses too much", _start("quantize.qat"),
        "the network is trained with the rounding in place; each epoch takes three times as long",
    ),
    Advice(
        CONVOLUTIONAL, "much smaller and faster, with time to train",
        _start("prune.structured", "distill", "quantize.static"),
        "the least useful channels go, the original teaches what is left, then whole numbers: the"
        " usual order",
    ),
    Advice(
        CONVOLUTIONAL, "a smaller network, without training",
        _start("prune.structured", "repair.reconstruct", "quantize.static"),
        "after a mild cut, every layer is refitted to what it computed before, in seconds",
    ),
    Advice(
        CONVOLUTIONAL, "as fast as can be, and it is deep",
        _start("prune.depth", "repair.batchnorm", "distill", "quantize.static"),
        "whole blocks go, and with them all their time; narrower layers save less of it",
    ),
    Advice(
        CONVOLUTIONAL, "large kernels, wide layers", _start("lowrank.tucker", "tune"),
        "a convolution becomes three thin ones; not for thin or 1x1 layers",
    ),
    Advice(
        TRANSFORMER, "smaller and faster, without training", _start("quantize.dynamic"),
        "on ONNX Runtime: half the time and a quarter of the bytes, and no calibration",
    ),
    Advice(
        TRANSFORMER, "the same, on OpenVINO", _start(_SMOOTH),
        "fixed ranges, smoothed beforehand; there, dynamic quantization is slower than none",
    ),
    Advice(
        TRANSFORMER, "much faster, with time to train",
        _start("prune.depth", "distill", "quantize.dynamic"),
        "whole layers go, the original teaches the rest",
    ),
    Advice(
        TRANSFORMER, "narrower, with time to train",
        _start("prune.heads", "prune.structured", "distill", "quantize.dynamic"),
        "attention heads and hidden units that are missed least",
    ),
    Advice(
        TRANSFORMER, "fewer weights in its linear layers",
        _start("lowrank.svd", "distill", "quantize.dynamic"),
        "a layer becomes two thin ones; lowrank.cur does it with the layer's own rows and columns,"
        " where few of them stand out",
    ),
    Advice(
        TRANSFORMER, "the smallest file", _start(_FOUR_BITS),
        "linear layers and embeddings in 4 bits a weight, an eighth; not faster",
    ),
    Advice(
        TRANSFORMER, "one base model for many tasks, or little data", _start("adapt"),
        "small modules are trained, the model is not; searched only where you name it, or with"
        " `preset: autopeft`",
    ),
    Advice(
        RECURRENT, "a smaller file, without training", _start("quantize.dynamic"),
        "a quarter of the bytes; faster only where the runtime computes an LSTM in whole numbers",
    ),
    Advice(
        RECURRENT, "faster, with time to train",
        _start("prune.recurrent", "distill", "quantize.dynamic"),
        "hidden units go; the time of a step goes with nearly the square of their number",
    ),
    Advice(
        VALUES, "smaller, with every digit kept", _start(_HALF_BYTES),
        "half the bytes at next to no loss; the arithmetic stays as it is",
    ),
    Advice(
        VALUES, "smaller and faster", _start(_SOME_FLOAT),
        "layers that read inputs, give outputs or cost most accuracy stay as they are;"
        " `preset: conservative` keeps all of a search gentle",
    ),
    Advice(
        ANY, "a smaller file at next to no loss", _start("quantize.weights"),
        "8 bits a weight, a quarter of the bytes; no faster",
    ),
    Advice(
        ANY, "faster on a GPU, or on a CPU with bf16", _start("quantize.half"),
        "16 bits throughout; for `target: torch.cuda`, `torch.compile` or `openvino`, not ONNX"
        " Runtime's CPU",
    ),
    Advice(
        ANY, "better at the same size", _start("tune"),
        "more training; of data that is learnt by heart already there is nothing left to learn",
    ),
    Advice(
        ANY, "many zeros: for zipped files, or 2:4 on a GPU", _start("prune.unstructured", "tune"),
        "neither smaller as it lies on the disk nor faster on a CPU",
    ),
)  # fmt: skip
"""Each kind's advice in the order in which to try it. Figures are those of the stages' cards."""


def guide_markdown(advice: Iterable[Advice] = GUIDE) -> str:
    """The table for a page: kinds of models in bold, stages as code."""
    lines = ["| my model is | I want | start with | to know |", "|---|---|---|---|"]
    last = ""
    for one in advice:
        kind = f"**{one.model}**" if one.model != last else ""
        start = " → ".join(_code(stage) for stage in one.start)
        lines.append(f"| {kind} | {one.aim} | {start} | {one.words} |")
        last = one.model
    return "\n".join(lines)


def _code(stage: StageSpec) -> str:
    settings = ", ".join(f"{name}: {value}" for name, value in stage.params.items())
    return f"`{stage.kind}`" + (f" (`{settings}`)" if settings else "")
