"""Half precision: arithmetic in 16 bits, and that of linear layers in 8, where the runtime has
kernels for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Value
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter, refusal
from petra.methods.quantize.parameters import (
    EXCLUDE_ENDS,
    EXCLUDE_LIMITS,
    excluded_layers,
    precise_outputs,
)
from petra.methods.quantize.quantized_share import (
    LayerCall,
    measure_shares,
    multiplications,
    output_change,
    predictions,
)
from petra.methods.quantize.selection import kind_of, matrices
from petra.model.layers.half import DTYPES, halve
from petra.model.layers.row_scaled import FORMATS, RowwiseLinear
from petra.model.surgery import is_under, replace_module, shared_weights, weight_bytes
from petra.space.domains import Choice
from petra.space.effects import FLOAT_WEIGHTS, INPUT_GRADIENTS, TRAINABLE, Effects
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs

MULTIPLE = 16
"""Both sizes of a linear layer that 8-bit kernels take are multiples of this (cuBLASLt's float8 and
int8 products).
"""


@dataclass(frozen=True)
class HalfPrecision(Stage):
    """Weights, activations and arithmetic in bf16 or fp16; linear layers, if wanted, in int8 or
    float8 through torchao.

    bf16 keeps float32's range and needs no care; fp16 is more precise and overflows beyond 65,504.
    `linear: int8` and `float8` quantize the weights per output channel and the activations per row
    on the spot, without calibration.

    When it helps: GPUs; CPUs with bf16 in hardware (AVX-512 BF16, AMX), in OpenVINO and PyTorch;
    half the bytes with next to no loss. When it does not: ONNX Runtime's CPU kernels, which have no
    16-bit arithmetic; CPUs without bf16, where it is slower than float32; int8 rows on CPUs with
    bf16, which save bytes and lose time against bf16 (benchmarks/results/half-precision.md); 8-bit
    rows on a GPU that are not compiled (benchmarks/results/gpu-check.md). Costs seconds.
    """

    name: ClassVar[str] = "quantize.half"
    effects: ClassVar[Effects] = Effects.of(
        needs=[FLOAT_WEIGHTS], removes=[FLOAT_WEIGHTS, TRAINABLE, INPUT_GRADIENTS]
    )

    dtype: str = parameter(
        "bf16", Choice(tuple(DTYPES)), "arithmetic of the network", scope="precision"
    )
    linear: str = parameter(
        "half",
        Choice(("half", *FORMATS), usual="half"),
        "arithmetic of linear layers (torchao's float8 products give bf16)",
        when={"dtype": ("bf16",)},
        scope="precision",
    )
    exclude: str = parameter(
        "none",
        EXCLUDE_ENDS,
        "layers that `linear` leaves alone",
        limits=EXCLUDE_LIMITS,
        when={"linear": tuple(FORMATS)},
    )

    @classmethod
    def modules(cls) -> tuple[type[nn.Module], ...]:
        return (RowwiseLinear,)

    @classmethod
    def preferred(cls, task: Task) -> Mapping[str, Value]:
        return precise_outputs(task)

    @property
    def structure_from_weights(self) -> bool:
        return False

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        return self.apply(model, context)[0]

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        return refusal(cls(), model, task)

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model = model.to("cpu").eval()
        example = context.task.example(2)
        if not any(p.is_floating_point() for p in model.parameters()):
            raise StageRefused("the model has no weights", hint="there is nothing to narrow")
        before, reference = weight_bytes(model), predictions(model, example)
        layers: dict[str, nn.Linear] = {}
        skipped: dict[str, str] = {}
        calls: list[LayerCall] = []
        others: dict[str, int] = {}
        if self.linear in FORMATS:
            excluded = excluded_layers(model, self.exclude, example)
            layers, skipped = _linear_layers(model, excluded)
            calls, others, macs = _calls(model, example, layers, skipped, self.dtype)
        weights = {path: layer.weight.detach().clone() for path, layer in layers.items()}
        halve(model, DTYPES[self.dtype])
        for path, weight in weights.items():
            replace_module(
                model, path, RowwiseLinear(weight, layers[path].bias, FORMATS[self.linear])
            )
        try:
            after = predictions(model, example)
        except RuntimeError as error:
            raise StageRefused(
                f"the model does not run in {self.dtype}: {str(error).strip().splitlines()[0]}",
                hint="it makes tensors of a fixed precision while it runs",
            ) from error
        if not torch.equal(after.isfinite(), reference.isfinite()):
            raise StageRefused(
                f"the outputs are not finite in {self.dtype}", hint="bf16 has float32's range"
            )
        changed = {
            path for path, module in model.named_modules() if list(module.parameters(recurse=False))
        }
        stored = weight_bytes(model)
        details: dict[str, object] = {
            "dtype": self.dtype,
            "linear": self.linear,
            "weight_bytes": [before, stored],
            "output_change": output_change(reference, after),
        }
        if calls:
            codes = sum(weight.numel() for weight in weights.values())
            elements = sum(p.numel() for p in model.parameters())
            shares = measure_shares(
                calls, others, macs=macs, elements=elements, code_bytes=codes, all_bytes=stored
            )
            details |= shares.as_details()
        return model, StageTrace(
            self.name, tuple(sorted(changed - skipped.keys())), skipped, details=details
        )


def _linear_layers(
    model: nn.Module, excluded: frozenset[str]
) -> tuple[dict[str, nn.Linear], dict[str, str]]:
    """The linear layers that 8-bit kernels take, and why they do not take the others.

    Refuses where there is none.
    """
    shared = shared_weights(model)
    layers: dict[str, nn.Linear] = {}
    skipped: dict[str, str] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if type(module) is not nn.Linear:
            skipped[path] = f"a {type(module).__name__} may do more than multiply"
        elif is_under(path, excluded):
            skipped[path] = "excluded"
        elif path in shared:
            skipped[path] = f"it shares parameters with {', '.join(shared[path])}"
        elif module.in_features % MULTIPLE or module.out_features % MULTIPLE:
            skipped[path] = (
                f"{module.out_features} x {module.in_features}: 8-bit kernels take multiples of"
                f" {MULTIPLE}"
            )
        else:
            layers[path] = module
    if not layers:
        reasons = "; ".join(f"{path}: {why}" for path, why in list(skipped.items())[:3])
        raise StageRefused(
            "no linear layer fits 8-bit kernels", hint=reasons or "the model has none"
        )
    return layers, skipped


def _calls(
    model: nn.Module,
    example: Inputs,
    rows: Mapping[str, nn.Linear],
    skipped: Mapping[str, str],
    dtype: str,
) -> tuple[list[LayerCall], dict[str, int], int]:
    """Every layer with weights, those of `rows` as 8 bits; multiply-accumulates of what is in no
    layer, and of the whole model."""
    layers = {path: module for path, module in model.named_modules() if matrices(module)}
    macs, others, all_macs = multiplications(model, example, layers)
    calls = []
    for path, module in layers.items():
        sizes = {id(p): p.numel() for p in matrices(module).values()}
        if path in rows:
            calls.append(LayerCall(path, macs[path], sizes, in_8_bits=True))
        else:
            reason = skipped.get(path, f"{kind_of(module)} layers are in {dtype}")
            calls.append(LayerCall(path, macs[path], {}, reason))
    return calls, others, all_macs
