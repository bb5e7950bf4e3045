"""The recipes, in the order in which they are tried: first what trains nothing, in seconds; then
cuts that are distilled and quantized, in rising strength.

Of a step's alternatives the first is taken that suits the model, is in the space and does not
refuse. Where a paper is named, the order of stages is its; the figures are those that petra's own
studies of CIFAR-10 ResNets, digits and MiniLM (`benchmarks/`, `examples/`) ended at.
"""

from __future__ import annotations

from petra.recipes.recipe import Blocks, Effort, OneOf, Params, Recipe, Step

SHORT = Effort(epochs=1, steps=160, macs=3e12)  # within a minute of two cores
MEDIUM = Effort(epochs=3, steps=320, macs=1.5e13)
LONG = Effort(epochs=8, steps=640, macs=1.5e14)

CONVOLUTIONAL, ATTENTION = frozenset({"convolutional"}), frozenset({"attention"})
RECURRENT, REGRESSION = frozenset({"recurrent"}), frozenset({"regression"})
INTEGER_RECURRENT = frozenset({"integer recurrent"})
NARROW, SLOW = frozenset({"narrow"}), frozenset({"slow to refit"})
STATIC_ONLY = frozenset({"static only"})

# ---- steps ---------------------------------------------------------------------------------------

# Integer arithmetic. Transformers have activations that no calibration settles, recurrent layers no
# integer kernels but dynamic ones, and without those at least weights in 8 bits. Layers that put
# out values stay float by default.
SMOOTH = Step("quantize.static", {"equalize": "smooth"}, on=ATTENTION)
INT8: OneOf = (
    Step("quantize.dynamic", on=ATTENTION, off=STATIC_ONLY),
    SMOOTH,
    Step("quantize.static", {"recurrent": "dynamic"}, on=CONVOLUTIONAL | INTEGER_RECURRENT),
    Step("quantize.dynamic", {"recurrent": "dynamic"}, on=INTEGER_RECURRENT, off=STATIC_ONLY),
    Step("quantize.static", {"recurrent": "int8"}, on=CONVOLUTIONAL | RECURRENT),
    Step("quantize.dynamic", on=RECURRENT, off=STATIC_ONLY),
    Step("quantize.static"),
    Step("quantize.dynamic"),
    Step("quantize.weights", {"bits": 8}),
)
# A second way to the same. Of a regression, the layers that cost most stay float, too.
OTHER_INT8: OneOf = (
    SMOOTH,
    Step("quantize.static", {"keep_float": 2}, on=REGRESSION, off=ATTENTION),
    Step("quantize.dynamic", off=CONVOLUTIONAL | STATIC_ONLY),
)
# He, Zhang & Sun 2017: refit what lost inputs; norms alone where that would take minutes.
REFIT: OneOf = (Step("repair.reconstruct", off=SLOW), Step("repair.batchnorm"))
REPAIR: OneOf = (*REFIT, None)


def cut(ratio: float) -> OneOf:
    """Channels, or hidden units of recurrent layers, in multiples that kernels like. To find out
    what little could go besides those takes long.
    """
    return (
        Step("prune.recurrent", {"ratio": ratio, "round_to": 8}, on=RECURRENT),
        Step("prune.recurrent", {"ratio": ratio, "round_to": 4}, on=RECURRENT),
        Step("prune.structured", {"ratio": ratio, "round_to": 8}, off=NARROW | RECURRENT),
        Step("prune.structured", {"ratio": ratio, "round_to": 4}, off=RECURRENT),
    )


def shorten(share: float) -> OneOf:
    """Whole blocks: they cost latency, whatever their width."""
    return (Step("prune.depth", {"blocks": Blocks(share)}), Step("prune.depth", {"blocks": 1}))


def distil(effort: Effort) -> OneOf:
    """Towards the untouched model, which knows the training data by heart; above all block by block
    in convolutional networks, whose small data say little by labels: by their outputs, or where
    these have other widths by where they are large.
    """
    sgd: Params = {"epochs": effort, "batch_size": 64, "lr": 0.02}
    blocks: Params = {**sgd, "features": 30.0}
    gentle: Params = {"epochs": effort, "batch_size": 64, "optimizer": "adamw", "lr": 3e-4}
    adamw: Params = {**gentle, "lr": 1e-3}
    return (
        Step("distill", gentle, on=ATTENTION),
        Step("distill", blocks, on=CONVOLUTIONAL, off=REGRESSION),
        Step(
            "distill",
            {**blocks, "features_kind": "attention"},
            on=CONVOLUTIONAL,
            off=REGRESSION,
        ),
        Step("distill", sgd, on=CONVOLUTIONAL, off=REGRESSION),
        Step("distill", adamw),
        Step("tune", gentle, on=ATTENTION),
        Step("tune", sgd, on=CONVOLUTIONAL, off=REGRESSION),
        Step("tune", adamw),
    )


LAST: OneOf = (*INT8, None)
THIN: OneOf = (Step("lowrank.svd", {"decomposer": "whitened", "ratio": 0.4}),)

# ---- recipes -------------------------------------------------------------------------------------

RECIPES: tuple[Recipe, ...] = (
    Recipe("int8: a quarter of the bytes, faster on most runtimes (Jacob et al. 2018)", (INT8,)),
    Recipe("int8 the other way: which one loses less, only data tell", (OTHER_INT8,)),
    Recipe(
        "half precision: half of the bytes at next to no loss, where there are kernels",
        ((Step("quantize.half"),),),
    ),
    Recipe("weights in 8 bits: bytes alone, safest", ((Step("quantize.weights", {"bits": 8}),),)),
    Recipe(
        "weights in 4 bits: an eighth of the bytes of linear layers and embeddings",
        ((Step("quantize.weights", {"bits": 4}),),),
        off=CONVOLUTIONAL,
    ),
    Recipe(
        "a mild cut, refitted without training, int8 (He, Zhang & Sun 2017)",
        (cut(0.2), REFIT, INT8),
    ),
    Recipe(
        "the block least missed goes, int8 (Chen & Zhao 2018; Shortened LLaMA 2024)",
        (shorten(0.0), (Step("repair.batchnorm"), None), INT8),
    ),
    Recipe(
        "a cut, a short distillation, int8: the usual order (Han et al. 2016; Hinton et al. 2015)",
        (cut(0.3), REPAIR, distil(SHORT), LAST),
    ),
    Recipe(
        "a ninth of the blocks goes, a short distillation, int8",
        (shorten(1 / 9), distil(SHORT), LAST),
    ),
    Recipe(
        "trained with rounding (Jacob et al. 2018), where static int8 loses points",
        ((Step("quantize.qat", {"epochs": SHORT, "batch_size": 64}),),),
        on=CONVOLUTIONAL,
    ),
    Recipe(
        "heads and widths, distilled, int8 (Michel, Levy & Neubig 2019)",
        ((Step("prune.heads"),), cut(0.3), distil(MEDIUM), LAST),
        on=ATTENTION,
    ),
    Recipe(
        "linear layers in two, distilled, int8 (SVD-LLM, Wang et al. 2024)",
        (THIN, distil(MEDIUM), LAST),
        off=CONVOLUTIONAL | RECURRENT,
    ),
    Recipe("half of the channels, distilled, int8", (cut(0.5), REPAIR, distil(MEDIUM), LAST)),
    Recipe(
        "fewer blocks and channels, distilled, int8",
        (shorten(2 / 9), cut(0.3), distil(MEDIUM), LAST),
    ),
    Recipe(
        "most of the channels, distilled for long, int8",
        (cut(0.7), REPAIR, distil(LONG), LAST),
    ),
    Recipe(
        "a quarter of the blocks, then channels, distilled once, for long, int8",
        (shorten(1 / 4), cut(0.4), REPAIR, distil(LONG), INT8),
    ),
    Recipe(
        "every block kept, nearly half of the channels, distilled for long, int8",
        (cut(0.45), REPAIR, distil(LONG), INT8),
    ),
)
