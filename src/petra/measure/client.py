"""Asking the measuring process: write the data it needs, start it, read its answer. Only writing splits loads torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from petra.core.errors import ArtifactError, PetraError
from petra.core.measurement import Measurement
from petra.measure.bench_main import Request

if TYPE_CHECKING:
    from petra.tasks.data import Split

TIME_LIMIT_S = 600.0


class BenchDied(PetraError):
    """The measuring process crashed or hung on an artifact."""


def write_split(split: Split, directory: Path, *, limit: int | None = None) -> np.ndarray:
    """Write a split's inputs as one .npy per input, in its own order, and return the targets (n, ...).

    `limit` keeps only the first items. Existing files are replaced.
    """
    from petra.tasks.inputs import named

    directory.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[np.ndarray]] = {}
    targets, count = [], 0
    for inputs, target in split.batches(256):
        for name, tensor in named(inputs).items():
            columns.setdefault(name, []).append(tensor.detach().cpu().numpy())
        targets.append(target.detach().cpu().numpy())
        count += len(targets[-1])
        if limit is not None and count >= limit:
            break
    for name, parts in columns.items():
        np.save(directory / f"{name}.npy", np.concatenate(parts)[:limit], allow_pickle=False)
    return np.concatenate(targets)[:limit]


def run_bench(request: Request, *, time_limit_s: float = TIME_LIMIT_S) -> dict[str, Measurement]:
    """Measure in a fresh process. Errors as in `ask`."""
    answer = ask("petra.measure.bench_main", asdict(request), time_limit_s=time_limit_s)
    return {name: Measurement(**value) for name, value in answer["metrics"].items()}


def ask(module: str, request: dict[str, Any], *, time_limit_s: float = TIME_LIMIT_S) -> dict[str, Any]:
    """Run ``python -m module`` on a JSON request and return its JSON answer.

    The request names an `artifact` and a number of `threads`; where the answer goes is filled in here. Raises
    ArtifactError with the runtime's own reason when the file does not load or run, BenchDied when the process crashed
    or exceeded the time limit.
    """
    with tempfile.TemporaryDirectory(prefix="petra-bench-") as scratch:
        answer_path = Path(scratch) / "answer.json"
        threads = str(request["threads"])
        environment = os.environ | dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads
        )
        package_root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_root, environment.get("PYTHONPATH", "")]))
        try:
            done = subprocess.run(
                [sys.executable, "-m", module],
                input=json.dumps(request | {"answer": str(answer_path)}),
                capture_output=True,
                text=True,
                timeout=time_limit_s,
                env=environment,
                check=False,
                start_new_session=True,  # Ctrl-C is the parent's to handle: a measurement under way finishes
            )
        except subprocess.TimeoutExpired:
            raise BenchDied(f"measuring {request['artifact']} took more than {time_limit_s:.0f} s") from None
        if not answer_path.is_file():
            last = done.stderr.strip().splitlines()[-1:] or ["no output"]
            raise BenchDied(f"the measuring process ended with exit code {done.returncode}: {last[0]}")
        answer: dict[str, Any] = json.loads(answer_path.read_text())
    if "error" in answer:
        raise ArtifactError(answer["error"], hint=answer["hint"])
    return answer
