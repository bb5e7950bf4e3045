"""Everything of petra that needs a CUDA GPU, in under eight minutes: ``make gpu-check``.

A residual network (ResNet-50, 224x224) and a BERT-base encoder with random weights run on the GPU in fp32, fp16, bf16,
with int8 and fp8 linear layers (torchao), with 2:4 sparse ones, eagerly, compiled and as CUDA graphs; then both CUDA
runtimes load what they export. Every row is compared with the same network in fp32, and a row that fails says why.
``results/gpu-check.md`` is written only where there is a GPU; elsewhere the script says that it skipped.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from petra.runtimes.base import first_line
from petra.runtimes.table import RUNTIMES

RESULTS = Path(__file__).parent / "results" / "gpu-check.md"
BUDGET_S = 480.0
CALLS = 50


# ---- the networks ----------------------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        changes = stride > 1 or inputs != outputs
        shortcut = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential(*shortcut) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50(classes: int = 1000) -> nn.Module:
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    blocks, inputs = [], 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(depth):
            blocks.append(Bottleneck(inputs, width, stride if i == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def bert() -> nn.Module:
    """BERT-base from its configuration; needs the package transformers."""
    from transformers import BertConfig, BertModel

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = BertModel(BertConfig(attn_implementation="sdpa"), add_pooling_layer=False)

        def forward(self, ids: Tensor) -> Tensor:
            hidden: Tensor = self.encoder(ids).last_hidden_state
            return hidden.mean(1)

    return Pooled()


class Cast(nn.Module):
    """A network in another precision that takes and returns fp32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.dtype = dtype
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x.to(self.dtype) if x.is_floating_point() else x)
        return y.float()


# ---- what is done to them --------------------------------------------------------------------------------------------

Change = Callable[[nn.Module], nn.Module]


def in_precision(dtype: torch.dtype) -> Change:
    return lambda model: Cast(model, dtype)


def large_linear(module: nn.Module, name: str) -> bool:
    """Layers that the int8, fp8 and 2:4 kernels take: both sizes a multiple of 32."""
    return isinstance(module, nn.Linear) and module.in_features % 32 == 0 and module.out_features % 32 == 0


def quantized(config_name: str) -> Change:
    """Linear layers by one of torchao's configurations, the rest in bf16."""

    def change(model: nn.Module) -> nn.Module:
        from torchao import quantization

        model = model.to(torch.bfloat16)
        quantization.quantize_(model, getattr(quantization, config_name)(), filter_fn=large_linear)
        return Cast(model, torch.bfloat16)

    return change


@torch.no_grad()
def keep_two_of_four(model: nn.Module) -> None:
    """Zero the two smallest of every four weights along the inputs of large linear layers."""
    for name, module in model.named_modules():
        if large_linear(module, name) and isinstance(module, nn.Linear):
            groups = module.weight.view(-1, 4)
            smallest = groups.abs().topk(2, dim=1, largest=False).indices
            groups.scatter_(1, smallest, 0.0)


def sparse(model: nn.Module) -> nn.Module:
    """Large linear layers as 2:4 semi-structured tensors in fp16."""
    from torch.sparse import to_sparse_semi_structured

    model = model.to(torch.float16)
    for name, module in model.named_modules():
        if large_linear(module, name) and isinstance(module, nn.Linear):
            module.weight = nn.Parameter(to_sparse_semi_structured(module.weight), requires_grad=False)
    return Cast(model, torch.float16)


# ---- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table. `latency_ms` is the median of single calls, each waited for."""

    network: str
    what: str
    how: str
    latency_ms: float = 0.0
    size_mb: float = 0.0
    error: float = 0.0
    failure: str = ""

    def text(self, fp32_ms: float) -> str:
        start = f"| {self.network} | {self.what} | {self.how} "
        if self.failure:
            return f"{start}| | | | | {self.failure.replace('|', '/')} |"
        ratio = f"{self.latency_ms / fp32_ms:.2f}x" if fp32_ms else ""
        return f"{start}| {self.latency_ms:.2f} | {ratio} | {self.size_mb:.1f} | {self.error:.1e} | |"


def latency_ms(run: Callable[[], object], device: str, calls: int) -> float:
    """Median of `calls` calls after warming up, waiting for the device after each."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(5):
        run()
    wait()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def tensor_bytes(tensor: Tensor) -> int:
    """Of plain tensors, and of what quantized and sparse ones are made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        parts, _ = tensor.__tensor_flatten__()
        return sum(tensor_bytes(getattr(tensor, name)) for name in parts)
    return tensor.numel() * tensor.element_size()


def size_mb(model: nn.Module) -> float:
    return sum(tensor_bytes(t) for t in (*model.parameters(), *model.buffers())) / 1e6


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Root mean square difference over the reference's spread."""
    return float((value.float() - reference).pow(2).mean().sqrt() / reference.std())


def on_device(network: str, what: str, change: Change, model: nn.Module, x: Tensor, how: str, calls: int) -> Row:
    """A changed copy of `model` on x's device: eager, compiled, or compiled into a CUDA graph."""
    device = x.device.type
    with torch.inference_mode():
        reference = model(x).float()
    candidate = change(copy.deepcopy(model)).eval()
    modes = {"eager": None, "torch.compile": "default", "CUDA graph": "reduce-overhead"}
    call: Callable[[Tensor], Tensor] = candidate
    if (mode := modes[how]) is not None:
        call = torch.compile(candidate, mode=mode)
    with torch.inference_mode():
        error = relative_error(call(x).clone(), reference)
        ms = latency_ms(lambda: call(x), device, calls)
    return Row(network, what, how, ms, size_mb(candidate), error)


def through_runtime(network: str, what: str, change: Change, model: nn.Module, x: Tensor, name: str, calls: int) -> Row:
    """What petra ships: exported to a file, reloaded by a runtime, arrays in and out in the host's memory."""
    with torch.inference_mode():
        reference = model(x).float().cpu()
    candidate = change(copy.deepcopy(model).cpu()).eval()
    runtime = RUNTIMES.get(name)()
    with tempfile.TemporaryDirectory() as scratch:
        files = runtime.export(candidate, x[:2].cpu(), Path(scratch) / f"model{runtime.suffix}")
        size = sum(file.stat().st_size for file in files) / 1e6
        session = runtime.load(files[0], threads=1)
        inputs = {session.input_names[0]: x.cpu().numpy()}
        (output,) = session.run(inputs).values()
        ms = latency_ms(lambda: session.run(inputs), x.device.type, calls)
    return Row(network, what, f"runtime {name}", ms, size, relative_error(torch.from_numpy(output), reference))


# ---- the plan --------------------------------------------------------------------------------------------------------

UNCHANGED: Change = lambda model: model  # noqa: E731
CHANGES: dict[str, Change] = {
    "fp32": UNCHANGED,
    "fp16": in_precision(torch.float16),
    "bf16": in_precision(torch.bfloat16),
    "int8 weights and activations": quantized("Int8DynamicActivationInt8WeightConfig"),
    "fp8 weights and activations": quantized("Float8DynamicActivationFloat8WeightConfig"),
    "2:4 sparse, fp16": sparse,
}


def plan(network: str, device: str) -> list[tuple[str, str, str]]:
    """(network, change, how), what matters most first, in case time runs out."""
    linear = ["int8 weights and activations", "fp8 weights and activations", "2:4 sparse, fp16"]
    runtimes = ("torch.cuda", "torch.compile.cuda") if device == "cuda" else ("torch", "torch.compile")
    rows = [(network, what, "eager") for what in ("fp32", "fp16", "bf16")]
    rows += [(network, what, f"runtime {name}") for name in runtimes for what in ("fp32", "fp16")]
    rows += [(network, "fp16", "torch.compile"), (network, "fp16", "CUDA graph")]
    if network != "ResNet-50":  # whose only linear layer is the last
        rows += [(network, what, how) for what in linear for how in ("eager", "torch.compile")]
    return rows


def check(networks: dict[str, tuple[Callable[[], nn.Module], Tensor]], device: str, calls: int) -> Iterator[Row]:
    """All rows, each guarded: what one cannot do is its reason, and what comes too late is said to."""
    began = time.perf_counter()
    models: dict[str, nn.Module] = {}
    for network, (build, _) in networks.items():
        torch.manual_seed(0)
        try:
            models[network] = build().eval().to(device)
            keep_two_of_four(models[network])  # for all rows, so that the sparse ones compute the same network
        except Exception as error:  # noqa: BLE001 - a missing package, no memory: the others still run
            yield Row(network, "all", "", failure=f"{type(error).__name__}: {first_line(error)}")
    plans = [plan(network, device) for network in models]
    for network, what, how in (row for rows in zip_longest(*plans) for row in rows if row):
        if time.perf_counter() - began > BUDGET_S:
            yield Row(network, what, how, failure="not run: out of time")
            continue
        step, x = (through_runtime if how.startswith("runtime ") else on_device), networks[network][1].to(device)
        try:
            yield step(network, what, CHANGES[what], models[network], x, how.removeprefix("runtime "), calls)
        except Exception as error:  # noqa: BLE001 - kernels fail in every way there is; the row says how
            yield Row(network, what, how, failure=f"{type(error).__name__}: {first_line(error)}")
        torch._dynamo.reset()
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


def networks() -> dict[str, tuple[Callable[[], nn.Module], Tensor]]:
    images = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(0, 30000, (8, 128), generator=torch.Generator().manual_seed(2))
    return {"ResNet-50": (resnet50, images), "BERT-base": (bert, ids)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    if not torch.cuda.is_available():
        reason = (
            "no CUDA GPU is visible" if torch.version.cuda else f"PyTorch {torch.__version__} is built without CUDA"
        )
        print(f"gpu-check: skipped, nothing was run or written: {reason}")
        return
    from petra.measure.host import describe_host

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    versions = describe_host()["versions"]
    assert isinstance(versions, dict)
    major, minor = torch.cuda.get_device_capability()
    lines = [
        "# GPU check",
        "",
        f"- date: {datetime.date.today().isoformat()}; command: `make gpu-check`",
        f"- {torch.cuda.get_device_name()}, compute capability {major}.{minor}",
        f"- torch {torch.__version__}, CUDA {torch.version.cuda}, torchao {versions['torchao']}",
        f"- batch 8; median of {CALLS} calls, each waited for; a runtime's rows include transfers to and from the GPU",
        "- sizes are megabytes of weights, in a runtime's rows of the exported file",
        "- random weights, large linear layers pruned to 2:4 in all rows; error: root mean square difference from the "
        "fp32 network on the GPU over its outputs' spread",
        "",
        "| network | what | how | ms | of fp32 eager | MB | error | failed because |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    fp32: dict[str, float] = {}
    for row in check(networks(), "cuda", CALLS):
        if row.what == "fp32" and row.how == "eager":
            fp32[row.network] = row.latency_ms
        lines.append(row.text(fp32.get(row.network, 0.0)))
        print(lines[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
