"""Advice in words: rules as data, each with the figures that it is given for and where that it
holds was measured or is documented. A new rule is one more record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from petra.explaining.facts import Facts
from petra.explaining.record import Advice

_ORT_FAQ = (
    "onnxruntime.ai, Quantize ONNX models, FAQ: quantization has overhead from quantizing and"
    " dequantizing; CPUs with VNNI or dot products gain most"
)
_RESULTS = "benchmarks/results"


@dataclass(frozen=True)
class Rule:
    """Advice `says`, a format string over the facts, `when` they ask for it; `source` is where
    that it holds was measured or is documented.
    """

    name: str
    when: Callable[[Facts], bool]
    says: str
    source: str


RULES: tuple[Rule, ...] = (
    Rule(
        "overhead",
        lambda f: f.batch == 1 and f.mean_us < 5,
        "{operators} operators in a call of {call_us:.0f} us, {mean_us:.1f} us each: starting them"
        " is much of it. Fewer of them help, narrower ones hardly: cut depth (prune.depth), not"
        " width, or run larger batches",
        f"{_RESULTS}/cifar10-resnet20.md: without one block 0.41x at 277 kB, 30% narrower 0.44x at"
        " 196 kB",
    ),
    Rule(
        "borders",
        lambda f: f.int8_layers > 0 and f.border > 0.1,
        "quantize and dequantize operators take {border:.0%} of the time: every float layer between"
        " int8 ones needs two. Keep fewer layers in float, and those side by side",
        _ORT_FAQ,
    ),
    Rule(
        "simulated",
        lambda f: f.runtime == "torch" and f.unfused > 0,
        "eager PyTorch only simulates the {unfused} int8 layers, and takes {border:.0%} of the time"
        " to quantize and dequantize for it: run the same file under torch.compile, or export for"
        " ONNX Runtime or OpenVINO",
        f"{_RESULTS}/half-precision.md: MiniLM with int8 rows 1.23x in eager PyTorch, 0.52x"
        " compiled",
    ),
    Rule(
        "open pairs",
        lambda f: f.runtime != "torch" and f.unfused > 0,
        "{unfused} layers ask for int8 and compute in float, behind dequantize operators"
        " ({border:.0%} of the time): quantize what comes after them as well, or exclude them, to"
        " be without the operators",
        f"measured here; {_ORT_FAQ}",
    ),
    Rule(
        "float between",
        lambda f: f.int8_layers > 0 and f.float_between > 0.15,
        "layers with float weights take {float_between:.0%} of the time beside {int8_layers} in"
        " int8, most of it {largest_float}: quantize that one if quality allows (exclude,"
        " keep_float), or cut it",
        f"{_RESULTS}/minilm-sst2.md: with two layers in float 0.48x, with none 0.42x",
    ),
    Rule(
        "no dot products",
        lambda f: f.int8_layers > 0 and not f.dot_products,
        "this CPU has no integer dot products, so {int8_layers} int8 layers gain less than"
        " elsewhere: cut channels or blocks as well",
        f"{_RESULTS}/cifar10-resnet20-avx2.md: int8 alone 0.61x without them, 0.48x with (README);"
        f" {_ORT_FAQ}",
    ),
    Rule(
        "depthwise",
        lambda f: f.depthwise_int8 > 0.1 and (f.depthwise_factor or 0.0) > 0.8,
        "depthwise convolutions in int8 take {depthwise_int8:.0%} of the time and"
        " {depthwise_factor:.2f}x of what they take in float: they move more than they multiply."
        " Leave them in float (exclude) and compare, or cut their channels",
        "measured here, on the same layers of the untouched model's file",
    ),
    Rule(
        "dynamic in OpenVINO",
        lambda f: f.runtime == "openvino" and f.has("quantize.dynamic"),
        "OpenVINO computes dynamically quantized layers step by step, here {ratio_text} of the"
        " untouched model's latency: use quantize.static (equalize: smooth for transformers)",
        f"{_RESULTS}/minilm-sst2.md: in OpenVINO dynamic int8 1.57x, static 0.39x",
    ),
    Rule(
        "layout",
        lambda f: f.layout > 0.1,
        "layout changes (transposes, reorders into blocks of channels) take {layout:.0%} of the"
        " time: channels in multiples of 8 or 16 (round_to), and fewer switches between int8 and"
        " float, need fewer of them",
        "onnxruntime.ai, Graph optimizations: the NCHWc layout; microsoft/onnxruntime issue 11005",
    ),
    Rule(
        "zeros",
        lambda f: f.has("prune.unstructured"),
        "no kernel of {runtime} that petra uses skips single zeros: convolutions and products take"
        " {compute_text} of the untouched model's time, by what else was done. For time cut"
        " channels (prune.structured) or blocks (prune.depth)",
        f"{_RESULTS}/own-model.md: int8 0.37x without zeros, 0.41x with, both 46.5 kB",
    ),
    Rule(
        "decoded",
        lambda f: f.decoded > 0.3,
        "layers that take {decoded:.0%} of the time have weights stored as codes and computed in"
        " float: that saves bytes, not time. For time use quantize.static or quantize.dynamic",
        f"{_RESULTS}/own-model.md: quantize.weights 48.7 kB of 176 kB at 0.99x",
    ),
    Rule(
        "half",
        lambda f: f.halved > 0 and f.runtime == "onnxruntime",
        "{halved} layers have weights in 16 bits, which ONNX Runtime's CPU kernels widen to"
        " float32: half the bytes, not the time. OpenVINO and PyTorch compute in bf16 where the CPU"
        " can",
        f"{_RESULTS}/half-precision.md: bf16 0.51x in OpenVINO (ResNet-56)",
    ),
    Rule(
        "attention",
        lambda f: f.int8_layers > 0 and f.attention > 0.25,
        "softmax, norms and products of activations take {attention:.0%} of the time and have no"
        " weights to quantize: fewer heads (prune.heads), blocks (prune.depth) or shorter inputs"
        " need less of them",
        f"{_RESULTS}/minilm-sst2.md: six heads less 0.376x, all heads 0.396x, both dynamic int8",
    ),
    Rule(
        "more operators",
        lambda f: bool(
            f.has("lowrank.svd", "lowrank.cur", "lowrank.tucker")
            and f.base_operators
            and f.operators > 1.2 * f.base_operators
            and (f.ratio or 0.0) > 0.9
        ),
        "{operators} operators run where the untouched model has {base_operators}, and latency is"
        " {ratio_text} of its: layers split in two or three cost more than they save"
        " here. Split fewer layers, at lower ranks",
        "measured here, beside the untouched model",
    ),
)


def advice_for(facts: Facts | None) -> tuple[Advice, ...]:
    """What the rules say of a candidate; () where nothing was profiled."""
    if facts is None:
        return ()
    words = vars(facts) | {
        "ratio_text": _times(facts.ratio),
        "compute_text": _times(facts.compute_factor),
    }
    return tuple(
        Advice(rule.name, rule.says.format(**words), rule.source)
        for rule in RULES
        if rule.when(facts)
    )


def _times(factor: float | None) -> str:
    return f"{factor:.2f}x" if factor is not None else "an unmeasured share"
