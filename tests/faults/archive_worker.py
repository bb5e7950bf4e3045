"""A process that opens archives as ``petra verify`` does, many one after the other: a line in, a
line of JSON out.

``python archive_worker.py petra`` loads and runs them with petra; ``... plain`` with PyTorch alone,
which shows that an attack is one.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from pathlib import Path

import torch

from petra.core.errors import PetraError
from petra.core.target import Target
from petra.measure.inspect_main import InspectRequest, inspect
from petra.measure.random_inputs import random_inputs
from petra.runtimes.torch_program import LoadedProgram


def open_with_petra(path: Path) -> str:
    """A digest of what the archive computes."""
    inspect(InspectRequest(Target("torch"), str(path)))
    session = LoadedProgram(path, threads=1)
    outputs = session.run(random_inputs(session.inputs, 3, seed=0))
    return hashlib.sha256(
        b"".join(outputs[name].tobytes() for name in sorted(outputs))
    ).hexdigest()[:16]


def open_plainly(path: Path) -> str:
    program = torch.export.load(str(path))
    module = program.module(check_guards=False)
    example = [torch.ones(2, 1, 8, 8)]
    module(*example)
    return ""


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr
    opens = open_with_petra if sys.argv[1] == "petra" else open_plainly
    for line in sys.stdin:
        answer = {"refused": "", "raised": "", "digest": ""}
        try:
            answer["digest"] = opens(Path(line.strip()))
        except PetraError as error:
            answer["refused"] = str(error)
        except BaseException as error:  # noqa: BLE001 - whatever else comes is what is looked for
            answer["raised"] = f"{type(error).__name__}: {error}"[:300]
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(answer | {"megabytes": megabytes}), file=answers, flush=True)


if __name__ == "__main__":
    main()
