"""Static post-training quantization to int8: calibrate activation ranges on data, round the weights, no training.

The path is torchao's PT2E: `torch.export` -> `prepare_pt2e` -> calibration -> `convert_pt2e`. The result is an
executable graph with explicit quantize and dequantize operators, which `petra.runtimes.onnx_export` writes as QDQ ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from petra.core.errors import StageRefused
from petra.methods.quantize.annotate import WEIGHT_MAX, DeploymentQuantizer, is_under, module_path
from petra.model import graph as rewrite
from petra.tasks.inputs import Inputs, batch_size, call, map_inputs

_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
_DEQUANTIZE_CHANNELS = torch.ops.quantized_decomposed.dequantize_per_channel.default


@dataclass(frozen=True)
class QuantizationResult:
    """A quantized graph and what is really int8 in it.

    model: runs in PyTorch with quantize-dequantize arithmetic, at any batch size. samples: calibration samples used.
    layers_quantized: module paths. layers_skipped: path -> reason. macs_share: part of the multiply-accumulates of
    one forward pass done by int8 layers. weights_share: part of the parameter elements stored as int8.
    """

    model: GraphModule
    samples: int
    layers_quantized: tuple[str, ...]
    layers_skipped: dict[str, str]
    macs_share: float
    weights_share: float


def quantize_static(
    model: nn.Module,
    example: Inputs,
    calibration: Iterable[Inputs],
    *,
    observer: str,
    exclude: frozenset[str],
    weight_max: int = WEIGHT_MAX,
) -> QuantizationResult:
    """Quantize `model` for deployment; it is left as it was, apart from being put in evaluation mode while traced.

    example: inputs of any batch size, for tracing. calibration: batches of inputs, a few hundred samples in all.
    observer, exclude, weight_max: see `DeploymentQuantizer`.

    Helps convolutional networks and multilayer perceptrons: 2 to 4 times faster where the CPU has int8 instructions, a
    quarter of the size. Does not help models whose activations have a few huge channels (most transformers), nor models
    that spend their time outside convolutions and linear layers. Costs one forward pass over the calibration data.

    Raises `StageRefused` when nothing can be quantized, when `exclude` names no module, when the batch size cannot
    vary, or when the model cannot be traced.
    """
    _check_excluded(model, exclude)
    traced = _trace(model, example)
    simplify(traced)
    quantizer = DeploymentQuantizer(observer=observer, exclude=exclude, weight_max=weight_max)
    total_macs = sum(rewrite.multiply_accumulates(node) for node in traced.graph.nodes)
    prepared = prepare_pt2e(traced, quantizer)
    if not quantizer.quantized:
        reasons = "; ".join(f"{path or 'the model'}: {reason}" for path, reason in quantizer.skipped.items())
        raise StageRefused(
            f"nothing can be quantized ({reasons or 'the model has no parameterised layer'})",
            hint="int8 covers convolutions and linear layers; shorten `exclude` or drop the stage",
        )
    samples = _calibrate(prepared, calibration)
    total_elements = _parameter_elements(prepared)
    converted = convert_pt2e(prepared)
    round_biases(converted)
    int8_layers = [layer for layer in quantizer.layers if layer.quantized]
    int8_elements = {layer.weight: layer.weight_elements for layer in int8_layers}
    return QuantizationResult(
        model=converted,
        samples=samples,
        layers_quantized=tuple(dict.fromkeys(quantizer.quantized)),
        layers_skipped=dict(quantizer.skipped),
        macs_share=min(1.0, sum(layer.macs for layer in int8_layers) / max(1, total_macs)),
        weights_share=min(1.0, sum(int8_elements.values()) / max(1, total_elements)),
    )


def simplify(traced: GraphModule) -> None:
    """All exact rewrites of `petra.model.graph`, in order; in place."""
    rewrite.functionalise(traced.graph)
    rewrite.drop_identities(traced.graph)
    rewrite.global_average_as_mean(traced.graph)
    rewrite.split_batch_norm_over_concat(traced)
    rewrite.batch_norm_as_depthwise_conv(traced)
    rewrite.clip_before_moving(traced)
    for node in rewrite.in_place_calls(traced.graph):
        raise StageRefused(
            f"{node.target} writes into a view of another tensor, which a quantized graph cannot express",
            layer=module_path(node) or None,
            hint="write it without the in-place operation",
        )


def round_biases(converted: GraphModule) -> None:
    """Round the biases of int8 layers to the grid their int32 codes will have; in place.

    Integer kernels add bias codes of scale s_x s_w, the input's scale times the weight's. With the rounding done here
    PyTorch and the runtime compute from the same numbers.
    """
    for node in converted.graph.nodes:
        if node.op != "call_function" or not rewrite.is_weighted(node) or len(node.args) < 3:
            continue
        data, weight, bias = node.args[:3]
        if not isinstance(bias, Node) or {data.target, weight.target} != {_DEQUANTIZE, _DEQUANTIZE_CHANNELS}:
            continue
        value, weight_scale = rewrite.constant(converted, bias), rewrite.constant(converted, weight.args[1])
        if value is None or weight_scale is None or len(bias.users) != 1:
            continue
        step = weight_scale.double() * data.args[1]
        rewrite.replace_constant(converted, bias, ((value.double() / step).round() * step).to(value.dtype))


def _trace(model: nn.Module, example: Inputs) -> GraphModule:
    """Export in evaluation mode with a dynamic batch dimension."""
    if batch_size(example) == 1:  # tracing would fix a dimension of one
        example = map_inputs(example, lambda tensor: torch.cat([tensor, tensor]))
    kwargs = example if isinstance(example, dict) else {}
    args = example if isinstance(example, tuple) else () if isinstance(example, dict) else (example,)
    free = {0: torch.export.Dim.DYNAMIC}
    shapes = dict.fromkeys(kwargs, free) if kwargs else tuple(free for _ in args)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        exported = torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except (TorchDynamoException, RuntimeError, ValueError) as error:
        raise StageRefused(
            f"the model cannot be traced with a free batch size: {_first_line(error)}",
            hint="the forward pass must not depend on the batch size or on the values of its inputs",
        ) from error
    finally:
        for module in training:
            module.training = True
    module = exported.module()
    assert isinstance(module, GraphModule)
    return module


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _calibrate(prepared: GraphModule, calibration: Iterable[Inputs]) -> int:
    samples = 0
    with torch.no_grad():
        for inputs in calibration:
            call(prepared, inputs)
            samples += batch_size(inputs)
    if not samples:
        raise StageRefused("there is no calibration data", hint="pass at least one batch of inputs")
    return samples


def _check_excluded(model: nn.Module, exclude: frozenset[str]) -> None:
    paths = {name for name, _ in model.named_modules()}
    for name in sorted(exclude):
        if not any(is_under(path, frozenset({name})) for path in paths):
            raise StageRefused("is to be excluded, but the model has no such module", layer=name)


def _parameter_elements(prepared: GraphModule) -> int:
    """Elements of the float tensors the graph reads, each counted once."""
    shapes = {
        node.target: rewrite.sizes(node)
        for node in prepared.graph.nodes
        if node.op == "get_attr" and rewrite.is_float32(node) and node.users
    }
    return sum(math.prod(shape) for shape in shapes.values())
