"""A study with made-up results, for tests that look at what it shows. As a script:
``python runs_a_study.py WORKDIR [quiet]``.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from torch import nn

import petra
from petra.testing.recorded import RecordedExecutor


def run(workdir: str, *, progress: bool = True) -> petra.Study:
    """Eight trials, a fifth of a second each at most."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    return petra.compress(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        petra.classification((x, y), (x, y), (x, y)),
        budget={"trials": 8},
        constraints="size <= 0.5 * baseline",
        executor=partial(RecordedExecutor, delay_s=0.2),
        workdir=workdir,
        progress=progress,
    )


if __name__ == "__main__":
    run(sys.argv[1], progress="quiet" not in sys.argv)
    print("it is over")
