"""What a shell completes besides commands and options: names that petra knows. Loads no torch.

Each function takes what was typed so far and returns the names that begin with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer


def stage_names(incomplete: str) -> list[str]:
    """Stages, and families of them."""
    from petra.methods.table import STAGES

    families = {name.partition(".")[0] for name in STAGES.names() if "." in name}
    return _beginning(incomplete, [*families, *STAGES.names()])


def pick_names(incomplete: str) -> list[str]:
    """What `--pick` takes besides numbers."""
    from petra.front import PICKS

    return _beginning(incomplete, PICKS)


def workload_names(incomplete: str) -> list[str]:
    from petra.workloads.table import WORKLOADS

    return _beginning(incomplete, WORKLOADS.names())


def runtime_names(incomplete: str) -> list[str]:
    """Runtimes; of several, separated by commas, the last."""
    from petra.runtimes.table import RUNTIMES

    given, comma, last = incomplete.rpartition(",")
    return [f"{given}{comma}{name}" for name in _beginning(last, RUNTIMES.names())]


def starter_names(incomplete: str) -> list[str]:
    """Kinds of models that `petra init` knows."""
    from petra.cli.starter import STARTERS

    return _beginning(incomplete, STARTERS)


WorkloadOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A reference problem, instead of a file: petra workloads.",
        autocompletion=workload_names,
    ),
]

RuntimeOption = Annotated[
    str | None,
    typer.Option(
        help="Runtime, instead of the one the file's suffix stands for.",
        autocompletion=runtime_names,
    ),
]

RuntimeNameOption = Annotated[
    str | None,
    typer.Option(help="What runs the file. Default: onnxruntime.", autocompletion=runtime_names),
]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in set(names) if name.startswith(incomplete))
