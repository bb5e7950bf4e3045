"""Our static int8 against ONNX Runtime's own quantizer: same fp32 file, same 512 calibration images, same session.

``python benchmarks/int8_reference.py [resnet20|resnet56]`` writes ``results/int8-reference-MODEL.md``. Both of the
runtime's weight ranges are tried: full, and reduced to 7 bits, which CPUs without integer dot products need.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from petra.measure.bench_main import Request
from petra.measure.client import run_bench, write_split
from petra.measure.host import describe_host
from petra.methods.base import Context
from petra.methods.quantize.static import StaticQuantize
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.workloads.cifar10 import cifar10

RESULTS = Path(__file__).parent / "results"
SAMPLES = 512


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """The calibration images in batches of 64."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(images, len(images) // 64))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"input": batch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="resnet20", choices=["resnet20", "resnet56"])
    name = parser.parse_args().model
    model, task = cifar10(model=name)
    context = Context(task=task, teacher=model, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        runtime = OnnxRuntime()
        files = {"fp32": runtime.export(model, task.example(2), place / "fp32.onnx")[0]}
        quant_pre_process(str(files["fp32"]), str(place / "pre.onnx"))
        stage = StaticQuantize(samples=SAMPLES, observer="minmax")
        images = torch.cat(list(stage._calibration(context))).numpy()  # type: ignore[misc]
        for reduced in (False, True):
            label = f"ONNX Runtime's quantizer, {'7' if reduced else '8'}-bit weights"
            files[label] = place / f"ort-{reduced}.onnx"
            quantize_static(
                str(place / "pre.onnx"),
                str(files[label]),
                Batches(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=reduced,
            )
        for observer in ("minmax", "histogram"):
            quantized, _ = StaticQuantize(samples=SAMPLES, observer=observer).apply(copy.deepcopy(model), context)
            label = f"petra, {observer}"
            files[label] = runtime.export(quantized, task.example(2), place / f"{observer}.onnx")[0]
        targets = torch.from_numpy(write_split(task.test, place / "test"))
        host = describe_host()
        lines = [
            f"# Static int8 of {name}",
            "",
            f"- date: {datetime.date.today().isoformat()}; command: `python benchmarks/int8_reference.py {name}`",
            f"- host: {host['cpu']}, {host['cores']} cores, "
            + ", ".join(k for k, has in dict(host["instruction_sets"]).items() if has),  # type: ignore[call-overload]
            f"- {SAMPLES} calibration images, batch 1, 1 thread, paired with the fp32 file",
            "",
            "| file | bytes | test accuracy | latency ratio (95%) | throughput ratio at 64 |",
            "|---|---|---|---|---|",
        ]
        for label, path in files.items():
            request = Request(
                "onnxruntime",
                str(path),
                "",
                str(place / "test"),
                baseline=str(files["fp32"]),
                predictions=str(place / "p.npy"),
                confirm=True,
            )
            found = run_bench(request)
            score = task.score(torch.from_numpy(np.load(place / "p.npy", allow_pickle=False)), targets)
            ratio = found["latency_ratio"]
            lines.append(
                f"| {label} | {path.stat().st_size:,} | {100 * score.mean:.2f} ± {100 * score.stderr:.2f} "
                f"| {ratio.mean:.3f} ({ratio.interval[0]:.3f}-{ratio.interval[1]:.3f}) "
                f"| {found['throughput_ratio'].mean:.2f} |"
            )
            print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"int8-reference-{name}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
