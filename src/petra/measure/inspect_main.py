"""Trying a shipped file in a fresh interpreter: does it load, which inputs does it want, does it run at any batch size?

``python -m petra.measure.inspect_main`` reads one JSON request from standard input, as `bench_main` does.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from petra.core.errors import ArtifactError
from petra.measure.bench_main import reply, take
from petra.measure.random_inputs import random_inputs
from petra.runtimes.base import Arrays, Session
from petra.runtimes.table import RUNTIMES


@dataclass(frozen=True)
class InspectRequest:
    """What to try. Runs the artifact on `batches` of random items."""

    runtime: str
    artifact: str
    answer: str = ""
    batches: tuple[int, ...] = (1, 5)
    threads: int = 1
    seed: int = 0


def inspect(request: InspectRequest) -> dict[str, object]:
    """Inputs, output shapes by batch size, and how far outputs depend on what else is in the batch.

    `batch_difference` is the largest difference between an item's outputs alone and in the largest batch, over the
    outputs' spread. Raises ArtifactError when the file does not load, does not run, or returns NaN or infinity.
    """
    session = RUNTIMES.get(request.runtime)().load(Path(request.artifact), threads=request.threads)
    items = random_inputs(session.inputs, max(request.batches), seed=request.seed)
    runs = [{"batch": n, "outputs": _shapes(_run(session, take(items, 0, n), n))} for n in request.batches]
    together = _run(session, items, max(request.batches))
    alone = [_run(session, take(items, i, 1), 1) for i in range(max(request.batches))]
    difference = 0.0
    for name, whole in together.items():
        if np.issubdtype(whole.dtype, np.floating):
            single = np.concatenate([one[name] for one in alone])
            difference = max(difference, float(np.abs(single - whole).max()) / (float(np.std(whole)) or 1.0))
    answer: dict[str, object] = {
        "inputs": [asdict(spec) for spec in session.inputs],
        "runs": runs,
        "batch_difference": difference,
    }
    if request.runtime == "onnxruntime":
        from petra.runtimes.onnx_inspect import count_operators

        answer["operators"] = asdict(count_operators(Path(request.artifact)))
    return answer


def _run(session: Session, inputs: Arrays, batch: int) -> Arrays:
    outputs = session.run(inputs)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != batch:
            raise ArtifactError(
                f"output {name!r} has shape {array.shape} for a batch of {batch}",
                hint="the first dimension of every output must be the batch",
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ArtifactError(f"output {name!r} contains NaN or infinity on random inputs at batch {batch}")
    return outputs


def _shapes(outputs: Arrays) -> dict[str, list[int]]:
    return {name: list(array.shape) for name, array in outputs.items()}


def main() -> None:
    """Read the request, try the file, write the answer."""
    data = json.load(sys.stdin)
    request = InspectRequest(**data | {"batches": tuple(data["batches"])})
    reply(request.answer, lambda: inspect(request))


if __name__ == "__main__":
    main()
