"""Our static int8 against the quantizers of ONNX Runtime and NNCF: one fp32 file, the same 512
calibration images.

``python benchmarks/int8_reference.py [resnet20|resnet56|resnet8]`` writes
``results/int8-reference-MODEL.md``. The fp32 file is what PyTorch's own exporter writes. Both of
ONNX Runtime's weight ranges are tried: full, and reduced to 7 bits, which CPUs without integer dot
products need. Every file runs in every runtime that reads it.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from host import heading
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from petra.core.measurement import Measurement
from petra.core.target import Target
from petra.measure.bench_main import Request
from petra.measure.client import run_benches, write_split
from petra.measure.stored import load_arrays
from petra.methods.base import Context
from petra.methods.quantize.calibration import Calibration
from petra.methods.quantize.static import StaticQuantize
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.base import Task
from petra.tasks.inputs import call, prediction
from petra.workloads.cifar10 import MODELS, cifar10

RESULTS = Path(__file__).parent / "results"
SAMPLES = 512
RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Rival:
    """A file to measure: what made it, its main file, everything that ships, and where it runs."""

    label: str
    path: Path
    ours: bool = False
    runtimes: tuple[str, ...] = RUNTIMES

    @property
    def size(self) -> int:
        return sum(f.stat().st_size for f in self.path.parent.glob(f"{self.path.stem}.*"))


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """The calibration images in batches of 64."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(images, len(images) // 64))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"input": batch}


def exported(model: nn.Module, task: Task, path: Path) -> Path:
    """The fp32 file as PyTorch's exporter writes it."""
    free = {"x": {0: torch.export.Dim.DYNAMIC}}
    torch.onnx.export(
        model, (task.example(2),), path, input_names=["input"], output_names=["output"],
        dynamo=True, dynamic_shapes=free, external_data=False, verbose=False,
    )  # fmt: skip
    return path


def with_onnxruntime(fp32: Path, images: np.ndarray, path: Path, *, reduced: bool) -> Path:
    prepared = path.parent / "prepared" / "model.onnx"
    prepared.parent.mkdir(exist_ok=True)
    quant_pre_process(str(fp32), str(prepared))
    quantize_static(
        str(prepared), str(path), Batches(images), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, reduce_range=reduced,
    )  # fmt: skip
    return path


def with_nncf(fp32: Path, images: np.ndarray, path: Path) -> Path:
    import nncf
    import openvino

    model = openvino.Core().read_model(fp32)
    quantized = nncf.quantize(model, nncf.Dataset(list(images[:, None])), subset_size=len(images))
    openvino.save_model(quantized, path)
    return path


def rivals(model: nn.Module, task: Task, place: Path) -> list[Rival]:
    """fp32 first, then the other quantizers' files, then ours."""
    context = Context(task=task, teacher=model, seed=0)
    images = torch.cat(list(Calibration(context, SAMPLES))).numpy()  # type: ignore[arg-type]
    found = [Rival("fp32", exported(model, task, place / "fp32.onnx"))]
    for bits, reduced in ((8, False), (7, True)):
        path = with_onnxruntime(found[0].path, images, place / f"ort{bits}.onnx", reduced=reduced)
        found.append(Rival(f"ONNX Runtime's quantizer, {bits}-bit weights", path))
    nncf_file = with_nncf(found[0].path, images, place / "nncf.xml")
    found.append(Rival("NNCF's PTQ, OpenVINO IR", nncf_file, runtimes=("openvino",)))
    for observer in ("minmax", "histogram"):
        quantized, _ = StaticQuantize(samples=SAMPLES, observer=observer).apply(
            copy.deepcopy(model), context
        )
        (path,) = OnnxRuntime().export(quantized, task.example(2), place / f"petra-{observer}.onnx")
        found.append(Rival(f"petra, {observer}", path, ours=True))
    return found


@torch.no_grad()
def in_pytorch(model: nn.Module, task: Task) -> str:
    """Accuracy on both splits that are official test images: validation, which nothing here chooses
    by, and test.
    """
    predictions, targets = [], []
    for split in (task.val, task.test):
        for inputs, target in split.batches(250):
            predictions.append(prediction(call(model, inputs)))
            targets.append(target)
    score = task.score(torch.cat(predictions), torch.cat(targets))
    return (
        f"{100 * score.mean:.2f} ± {100 * score.stderr:.2f} on {len(torch.cat(targets)):,} images"
    )


def measure(
    runtime: str, file: Rival, against: Rival, data: Path
) -> tuple[np.ndarray, dict[str, Measurement]]:
    """Predictions on the test split, and speed paired with another file in the same runtime."""
    answer = data.parent / "predictions.npz"
    request = Request(
        Target(runtime),
        str(file.path),
        str(data),
        baseline=str(against.path),
        predictions=str(answer),
        confirm=True,
    )
    found = run_benches(request)
    return next(iter(load_arrays(answer).values())), found


def table(
    runtime: str, files: list[Rival], task: Task, data: Path, targets: torch.Tensor
) -> Iterator[str]:
    """The rows of one runtime, then ours paired directly with the fastest of the others."""
    yield f"## {runtime} {metadata.version(runtime)}"
    yield ""
    yield (
        "| file | bytes | of fp32 | test accuracy | latency ratio (95%) | ms | throughput ratio at"
        " 64 |"
    )
    yield "|---|---|---|---|---|---|---|"
    here = [f for f in files if runtime in f.runtimes]
    speed: dict[str, float] = {}
    for file in here:
        predictions, found = measure(runtime, file, files[0], data)
        score = task.score(torch.from_numpy(predictions), targets)
        ratio = found["latency_ratio"]
        speed[file.label] = ratio.mean
        yield (
            f"| {file.label} | {file.size:,} | {file.size / files[0].size:.3f} |"
            f" {100 * score.mean:.2f} ± {100 * score.stderr:.2f} | {ratio.mean:.3f}"
            f" ({ratio.interval[0]:.3f}-{ratio.interval[1]:.3f}) | {found['latency_ms'].mean:.3f} |"
            f" {found['throughput_ratio'].mean:.2f} |"
        )
    best = min((f for f in here[1:] if not f.ours), key=lambda f: speed[f.label])
    ours = min((f for f in here if f.ours), key=lambda f: speed[f.label])
    _, found = measure(runtime, ours, best, data)
    ratio = found["latency_ratio"]
    yield ""
    yield (
        f"{ours.label} against {best.label}, timed in turns: {ratio.mean:.3f}"
        f" ({ratio.interval[0]:.3f}-{ratio.interval[1]:.3f}) of its latency,"
        f" {ours.size / best.size:.3f} of its bytes."
    )
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="resnet20", choices=sorted(MODELS))
    name = parser.parse_args().model
    model, task = cifar10(model=name)
    lines = [
        *heading(f"Static int8 of {name}", f"python benchmarks/int8_reference.py {name}"),
        (
            f"- {SAMPLES} calibration images, the same for all; batch 1, 1 thread, timed in turns"
            " with the fp32 file"
        ),
        f"- NNCF {metadata.version('nncf')}, torch {torch.__version__}",
        (
            "- fp32 in PyTorch on all official test images that we have, the validation split"
            f" included: {in_pytorch(model, task)}"
        ),
        "",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        files = rivals(model, task, place)
        targets = torch.from_numpy(write_split(task.test, place / "test"))
        for runtime in RUNTIMES:
            for line in table(runtime, files, task, place / "test", targets):
                lines.append(line)
                print(line, flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"int8-reference-{name}.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
