"""Half precision against fp32 where a CPU runtime gains from it: ``python
benchmarks/half_precision.py``.

ResNet-56 on CIFAR-10's 4,000 test images and MiniLM-L6 on SST-2's development set, in bf16, and
MiniLM with int8 rows as well, on every CPU runtime that has kernels for it. Takes minutes; writes
``results/half-precision.md``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from host import heading
from minilm_sst2 import LENGTH, RESULTS, made, rows
from torch import nn

from petra.core.target import Target
from petra.runtimes.table import runtime_for
from petra.tasks.base import Task
from petra.workloads.cifar10 import cifar10
from petra.workloads.glue import glue

Stages = list[dict[str, object]]
TARGETS = ("openvino", "torch", "torch.compile")
PIPELINES: Mapping[str, Stages] = {
    "fp32": [],
    "bf16": [{"stage": "quantize.half", "params": {"dtype": "bf16"}}],
    "bf16, int8 rows": [{"stage": "quantize.half", "params": {"linear": "int8"}}],
}


def tables(
    name: str, model: nn.Module, task: Task, chosen: Mapping[str, Stages], scratch: Path
) -> Iterator[str]:
    """One table for every runtime, of the pipelines it has kernels for."""
    yield f"# {name}"
    yield ""
    results = {label: made(model, task, stages) for label, stages in chosen.items()}
    for target in TARGETS:
        runtime = runtime_for(Target(target))
        files = {}
        for number, (label, result) in enumerate(results.items()):
            if "int8" not in label or "int8" in runtime.kernels.precisions:
                path = scratch / f"{name}-{target}-{number}{runtime.suffix}"
                (files[label],) = runtime.export(result, task.example(2), path)
        yield from rows(target, files, task, scratch / name / "test")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    lines = [
        *heading("Half precision on CPUs", "python benchmarks/half_precision.py"),
        (
            "- batch 1, 1 thread, timed in turns with the fp32 file; accuracy of the file on the"
            " test split"
        ),
        "",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        resnet = {label: stages for label, stages in PIPELINES.items() if "int8" not in label}
        lines += tables("ResNet-56", *cifar10(model="resnet56"), resnet, Path(scratch))
        lines += tables(
            f"MiniLM, {LENGTH} tokens",
            *glue("sst2", length=LENGTH, epochs=2),
            PIPELINES,
            Path(scratch),
        )
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    (RESULTS / "half-precision.md").write_text(text)


if __name__ == "__main__":
    main()
