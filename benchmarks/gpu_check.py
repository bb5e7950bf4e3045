"""Everything of petra that needs a CUDA GPU, in under eight minutes: ``make gpu-check``.

A residual network (ResNet-50, 224x224) and a BERT-base encoder with random weights go through
pipelines that ship fp32, fp16, bf16, int8 and float8 rows, and 2:4 sparse weights; each file is
then loaded by both CUDA runtimes (eager, and compiled into CUDA graphs), timed, and compared with
the PyTorch model it came from. After that every stage runs with ``device: cuda`` on two small
networks of the zoo. ``results/gpu-check.md`` is written only where there is a GPU; elsewhere the
script says that it skipped. The exit status is 1 when a row fails, disagrees or is not reached in
time.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gpu_networks import PIPELINES, Network, networks
from torch import Tensor, nn

from petra.core.pipeline import Pipeline
from petra.core.target import Target
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.runtimes.base import error_line
from petra.runtimes.table import runtime_for
from petra.runtimes.torch_eager import lacks_cuda
from petra.runtimes.verify import FLOAT_TOLERANCE, INT8_TOLERANCE
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.testing.coverage import FAILS, attempt, shortest_pipeline

RESULTS = Path(__file__).parent / "results" / "gpu-check.md"
BUDGET_S = 390.0  # no row begins later: the longest, a compilation, may take another minute
CALLS = 50
ON_GPU = ("torch.cuda", "torch.compile.cuda")
ZOO = ("cifar-resnet", "bert")


# ---- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table. `latency_ms` is the median of single calls with arrays in and out of
    the host's memory, `kernels` the number of weights that 8-bit or sparse kernels took, `error`
    relative to the outputs' spread.
    """

    network: str
    what: str
    runtime: str
    latency_ms: float = 0.0
    size_mb: float = 0.0
    kernels: int = 0
    error: float = 0.0
    failure: str = ""

    def text(self, fp32_ms: float) -> str:
        start = f"| {self.network} | {self.what} | {self.runtime} "
        if not self.latency_ms:
            return f"{start}| | | | | | {self.failure.replace('|', '/')} |"
        ratio = f"{self.latency_ms / fp32_ms:.2f}x" if fp32_ms else ""
        return (
            f"{start}| {self.latency_ms:.2f} | {ratio} | {self.size_mb:.1f} | {self.kernels} |"
            f" {self.error:.1e} | {self.failure} |"
        )


def latency_ms(run: Callable[[], object], calls: int) -> float:
    """Median of `calls` calls after five; a session's outputs are complete when it returns."""
    for _ in range(5):
        run()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def candidate(model: nn.Module, batch: Tensor, pipeline: Pipeline) -> nn.Module:
    """The model after the pipeline, built as in a study."""
    labels = torch.zeros(len(batch), dtype=torch.long)
    task: Task = classification(*[(batch, labels)] * 3)

    def context(prefix: Pipeline) -> Context:
        return Context(task=task, teacher=model, seed=0)

    specs = tuple(STAGES.get(spec.kind).card().normalize(spec.params) for spec in pipeline)
    return apply_pipeline(
        model, Pipeline(specs), context, cache=None, on_stage=lambda index, spec: None
    )[0]


def measure(
    network: str, what: str, name: str, path: Path, batch: Tensor, expected: np.ndarray, calls: int
) -> Row:
    """One file in one runtime. What is compared is a late call: the first ones compile and
    record.
    """
    session = runtime_for(Target(name)).load(path)
    inputs = {session.input_names[0]: batch.numpy()}
    ms = latency_ms(lambda: session.run(inputs), calls)
    (output,) = session.run(inputs).values()
    error = float(np.sqrt(np.mean((output - expected) ** 2)) / np.std(expected))
    limit = FLOAT_TOLERANCE if what == "fp32" else INT8_TOLERANCE
    failure = "" if error <= limit else f"disagrees: more than {limit:.1%}"
    kernels = len(getattr(session, "kernels", ()))
    return Row(network, what, name, ms, path.stat().st_size / 1e6, kernels, error, failure)


def check(
    chosen: Mapping[str, Network], runtimes: tuple[str, ...], calls: int, deadline: float
) -> Iterator[Row]:
    """All rows, each guarded: what one cannot do is its reason, and what comes too late is said
    to.
    """
    for network, spec in chosen.items():
        torch.manual_seed(0)
        try:
            model = spec.build().eval()
        except Exception as error:  # noqa: BLE001 - no package, no memory: others run
            yield Row(network, "all", "", failure=f"{type(error).__name__}: {error_line(error)}")
            continue
        for what in spec.pipelines:
            yield from _through_both(network, what, model, spec.batch, runtimes, calls, deadline)


def _through_both(
    network: str,
    what: str,
    model: nn.Module,
    batch: Tensor,
    runtimes: tuple[str, ...],
    calls: int,
    deadline: float,
) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.pt2"
        for name in runtimes:
            if time.perf_counter() > deadline:
                yield Row(network, what, name, failure="not run: out of time")
                continue
            try:
                if not path.exists():
                    built = candidate(model, batch, PIPELINES[what])
                    runtime_for(Target(name)).export(built, batch[:2], path)
                    with torch.inference_mode():
                        expected = built(batch).numpy()
                yield measure(network, what, name, path, batch, expected, calls)
            except Exception as error:  # noqa: BLE001 - the row says how kernels fail
                yield Row(
                    network, what, name, failure=f"{type(error).__name__}: {error_line(error)}"
                )
            torch._dynamo.reset()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def stages_on(device: str, deadline: float) -> Iterator[tuple[str, str, str, str]]:
    """(stage, architecture, outcome, reason) of every stage on `device`, on two architectures of
    the zoo.
    """
    for kind in STAGES:
        for architecture in ZOO:
            if time.perf_counter() > deadline:
                yield kind, architecture, FAILS, "not run: out of time"
                continue
            cell = attempt(architecture, shortest_pipeline(kind), device=device)
            yield kind, architecture, cell.outcome, cell.reason


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    if reason := lacks_cuda():
        print(
            f"gpu-check: skipped, nothing was run or written: {reason} (GPU_PYTHON names another"
            " interpreter)"
        )
        return
    from petra.measure.host import describe_host

    versions = describe_host()["versions"]
    assert isinstance(versions, dict)
    major, minor = torch.cuda.get_device_capability()
    lines = [
        "# GPU check",
        "",
        f"- date: {datetime.date.today().isoformat()}; command: `make gpu-check`",
        f"- {torch.cuda.get_device_name()}, compute capability {major}.{minor}",
        f"- torch {torch.__version__}, CUDA {torch.version.cuda}, torchao {versions['torchao']}",
        (
            f"- batch 8; median of {CALLS} calls, transfers to and from the GPU included; megabytes"
            " of the exported file"
        ),
        (
            "- random weights; ratio: to fp32 in the same runtime; layers: those that 8-bit or 2:4"
            " kernels took; error:"
        ),
        "  root mean square difference from the PyTorch model on the CPU over its outputs' spread",
        "",
        "| network | what | runtime | ms | ratio | MB | layers | error | failed because |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    failed = 0
    deadline = time.perf_counter() + BUDGET_S
    fp32: dict[tuple[str, str], float] = {}
    for row in check(networks(), ON_GPU, CALLS, deadline):
        if row.what == "fp32":
            fp32[row.network, row.runtime] = row.latency_ms
        failed += bool(row.failure)
        lines.append(row.text(fp32.get((row.network, row.runtime), 0.0)))
        print(lines[-1], flush=True)
    lines += [
        "",
        f"Every stage with `device: cuda`, on {' and '.join(ZOO)}:",
        "",
        "| stage | network | | |",
        "|---|---|---|---|",
    ]
    for kind, architecture, outcome, why in stages_on("cuda", deadline):
        failed += outcome == FAILS
        lines.append(f"| {kind} | {architecture} | {outcome} | {why.replace('|', '/')} |")
        print(lines[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")
    if failed:
        sys.exit(f"gpu-check: {failed} rows failed")


if __name__ == "__main__":
    main()
