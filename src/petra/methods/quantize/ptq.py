"""Static post-training quantization to int8: calibrate activation ranges on data, round the
weights, no training.

The path is torchao's PT2E: `torch.export` -> `prepare_pt2e` -> calibration -> `convert_pt2e`. The
result is an executable graph with explicit quantize and dequantize operators, which runtimes' files
take over.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from petra.core.errors import ExportError, StageRefused
from petra.core.interface import Interface
from petra.core.kernels import USUAL, Kernels
from petra.methods.quantize.annotate import DeploymentQuantizer
from petra.methods.quantize.calibration import first_items, measured, observe, one_batch
from petra.methods.quantize.corrections import correct_biases, round_biases
from petra.methods.quantize.equalize import equalize_layers
from petra.methods.quantize.parameters import check_excluded
from petra.methods.quantize.quantized_share import Shares, check_macs, measure_shares
from petra.methods.quantize.rounding_cost import sensitivities
from petra.methods.quantize.smooth import smooth_layers
from petra.model.aten import batch_norms, rewrites
from petra.model.aten.cells import cells_as_linear
from petra.model.aten.constants import fold_constants
from petra.model.aten.graph import constant
from petra.model.aten.macs import multiply_accumulates
from petra.model.aten.products import products_as_linear
from petra.model.aten.transposed import transposed_as_convolutions
from petra.model.surgery import evaluating
from petra.runtimes.free_sizes import free_axes, traced_example
from petra.runtimes.tracing import capture
from petra.tasks.inputs import Inputs

MEASURED_ITEMS = 128
"""Calibration items that sensitivities and bias corrections are measured on."""


@dataclass(frozen=True)
class QuantizationResult:
    """A quantized graph and what is really int8 in it.

    model: runs in PyTorch with quantize-dequantize arithmetic, at any batch size. samples:
    calibration samples used. layers_quantized: module paths. layers_skipped: path -> reason. notes:
    what else was done, as JSON data.
    """

    model: GraphModule
    samples: int
    layers_quantized: tuple[str, ...]
    layers_skipped: dict[str, str]
    shares: Shares
    notes: dict[str, object] = field(default_factory=dict)


def quantize_static(
    model: nn.Module,
    example: Inputs,
    calibration: Iterable[Inputs],
    *,
    observer: str,
    exclude: frozenset[str],
    kernels: Kernels = USUAL,
    weight_max: int | None = None,
    equalize: str = "none",
    alpha: float = 0.5,
    correct_bias: bool = False,
    keep_float: int = 0,
    interface: Interface | None = None,
) -> QuantizationResult:
    """Quantize `model` for deployment; it is left as it was, apart from being put in evaluation
    mode while traced.

    example: inputs of any batch size, for tracing; `interface` says which of their axes are free.
    calibration: batches of inputs, a few hundred samples in all; a `Calibration` also knows by
    whose error layers are ranked. observer, exclude, kernels, weight_max: see
    `DeploymentQuantizer`. equalize: "none", "cross_layer" (`equalize_layers`) or "smooth" with
    `alpha` (`smooth_layers`). correct_bias: see `correct_biases`. keep_float: so many of the layers
    with the largest `sensitivities` stay float.

    Helps convolutional networks and multilayer perceptrons: 2 to 4 times faster where the CPU has
    int8 instructions, a quarter of the size. Does not help models whose activations have a few huge
    channels (most transformers, unless smoothed), nor models that spend their time outside
    convolutions and linear layers. Costs one forward pass over the calibration data; "smooth"
    another; `keep_float` one more, and one over `MEASURED_ITEMS` for every layer.

    Raises `StageRefused` when nothing can be quantized, when nothing can be equalised or smoothed
    that is to be, when `exclude` names no module, when the batch size cannot vary, or when the
    model cannot be traced.
    """
    check_excluded(model, exclude)
    calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
    traced = trace(model, example, interface)
    simplify(traced)
    notes = _equalized(traced, calibration, equalize, alpha)
    quantizer_for = partial(
        DeploymentQuantizer, kernels, observer=observer, exclude=exclude, weight_max=weight_max
    )
    ranking: dict[str, float] = {}
    if keep_float:
        notes["sensitivity"] = ranking = rank_layers(traced, calibration, quantizer_for())
    quantizer = quantizer_for(keep=list(ranking)[:keep_float])
    total_macs = sum(multiply_accumulates(node) for node in traced.graph.nodes)
    prepared = _prepared(traced, quantizer)
    check_macs(quantizer.calls, quantizer.others, total_macs)
    samples = observe(prepared, calibration)
    if correct_bias:
        items = first_items(calibration, MEASURED_ITEMS)
        correction = correct_biases(prepared, one_batch(items))
        notes["biases_corrected"] = list(correction.corrected)
        notes["biases_left"] = correction.skipped
    return converted(prepared, quantizer, samples=samples, total_macs=total_macs, notes=notes)


def _equalized(
    traced: GraphModule, calibration: Iterable[Inputs], equalize: str, alpha: float
) -> dict[str, object]:
    """Equalise or smooth in place; notes of where. Raises StageRefused when there is nowhere to."""
    notes: dict[str, object] = {}
    if equalize == "cross_layer":
        pairs, left = equalize_layers(traced)
        if not pairs:
            raise StageRefused("no two layers can be equalised", hint=_few(left))
        notes["equalized_pairs"] = [list(pair.paths) for pair in pairs]
        notes["not_equalized"] = left
    elif equalize == "smooth":
        smoothing = smooth_layers(traced, calibration, alpha)
        if not smoothing.folded and not smoothing.multiplied:
            raise StageRefused(
                "no layer's inputs can be smoothed",
                hint=_few(smoothing.skipped) or "it has no linear layer",
            )
        notes["smoothed"] = {"folded": smoothing.folded, "multiplied": smoothing.multiplied}
        notes["not_smoothed"] = smoothing.skipped
    return notes


def rank_layers(
    traced: GraphModule, calibration: Iterable[Inputs], quantizer: DeploymentQuantizer
) -> dict[str, float]:
    """`sensitivities`, the largest first, of the layers that `quantizer` would treat; `traced` is
    left as it was.

    Costs a forward pass over `calibration`, and one over `MEASURED_ITEMS` for every layer.
    """
    prepared = _prepared(copy.deepcopy(traced), quantizer)
    observe(prepared, calibration)
    found = sensitivities(prepared, *measured(calibration, MEASURED_ITEMS))
    return {path: float(f"{distance:.4g}") for path, distance in found.items()}


def _prepared(traced: GraphModule, quantizer: DeploymentQuantizer) -> GraphModule:
    prepared = prepare_pt2e(traced, quantizer)
    check_something_is_quantized(quantizer)
    assert isinstance(prepared, GraphModule)
    return prepared


def check_something_is_quantized(quantizer: DeploymentQuantizer) -> None:
    """Raise StageRefused with all reasons when no layer was annotated."""
    if not quantizer.quantized:
        reasons = "; ".join(
            f"{path or 'the model'}: {reason}" for path, reason in quantizer.skipped.items()
        )
        raise StageRefused(
            f"nothing can be quantized ({reasons or 'the model has no parameterised layer'})",
            hint=(
                "int8 covers convolutions and linear layers; keep fewer in float or drop the stage"
            ),
        )


def converted(
    prepared: GraphModule,
    quantizer: DeploymentQuantizer,
    *,
    samples: int,
    total_macs: int,
    notes: dict[str, object],
) -> QuantizationResult:
    """The quantized graph of an observed one, which is used up, and the account of it."""
    elements = sum(_parameter_elements(prepared))
    result = convert_pt2e(prepared)
    round_biases(result)
    floats, codes = _parameter_elements(result)
    shares = measure_shares(
        quantizer.calls,
        quantizer.others,
        macs=total_macs,
        elements=elements,
        code_bytes=codes,
        all_bytes=codes + 4 * floats,
    )
    return QuantizationResult(
        model=result,
        samples=samples,
        layers_quantized=tuple(dict.fromkeys(quantizer.quantized)),
        layers_skipped=dict(quantizer.skipped),
        shares=shares,
        notes=notes,
    )


def simplify(traced: GraphModule) -> None:
    """All exact rewrites of `petra.model` that leave layers with constant weights, in order; in
    place.
    """
    rewrites.functionalise(traced.graph)
    rewrites.drop_identities(traced.graph)
    rewrites.global_average_as_mean(traced.graph)
    fold_constants(traced)
    cells_as_linear(traced)
    products_as_linear(traced)
    rewrites.split_batch_norm_over_concat(traced)
    batch_norms.fold_batch_norm(traced)
    transposed_as_convolutions(traced)
    batch_norms.fold_batch_norm_forward(traced)
    rewrites.batch_norm_as_depthwise_conv(traced)
    batch_norms.batch_norm_as_arithmetic(traced)
    rewrites.clip_before_moving(traced)


def trace(model: nn.Module, example: Inputs, interface: Interface | None = None) -> GraphModule:
    """Export in evaluation mode with the axes free that `interface` leaves free, by default the
    batch. Raises StageRefused when that is impossible.
    """
    example = traced_example(example)
    kwargs = example if isinstance(example, dict) else {}
    args = (
        example if isinstance(example, tuple) else () if isinstance(example, dict) else (example,)
    )
    try:
        # Fused attention returns another memory layout than the plain form exporters write; torch
        # remembers the first.
        with evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            exported = capture(model, args, kwargs, free=free_axes(example, interface))
    except ExportError as error:
        raise StageRefused(error.message, hint=error.hint) from error
    module = exported.module(check_guards=False)
    assert isinstance(module, GraphModule)
    return module


def _few(reasons: Mapping[str, str]) -> str:
    """The first five reasons."""
    return "; ".join(
        f"{path or 'the model'}: {reason}" for path, reason in list(reasons.items())[:5]
    )


def _parameter_elements(prepared: GraphModule) -> tuple[int, int]:
    """Elements of the float32 and of the int8 tensors the graph reads, each tensor counted once."""
    read = {n.target: n for n in prepared.graph.nodes if n.op == "get_attr" and n.users}
    of_type = dict.fromkeys((torch.float32, torch.int8), 0)
    for node in read.values():
        value = constant(prepared, node)
        if value is not None and value.dtype in of_type:
            of_type[value.dtype] += math.prod(value.shape)
    return of_type[torch.float32], of_type[torch.int8]
