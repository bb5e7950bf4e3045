"""What is given from Python: anything of the wrong kind is one message that names the argument, and
leaves nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import petra
from petra.core.errors import PetraError
from petra.store.layout import check_writable

WRONG: list[tuple[str, Any]] = [
    *(
        ("budget", v)
        for v in (None, True, [1], float("inf"), float("nan"), -1, "9" * 500, "²", {"trials": 1.5})
    ),
    *(("budget", {"trials": v}) for v in (True, 0, -3, 10**30, "²", None)),
    *(
        (name, v)
        for name in ("objectives", "constraints")
        for v in (3, [3], [None], {"a": 1}, "nothing")
    ),
    *(
        ("target", v)
        for v in (3, None, "onnx", {"threads": True}, {"batch": 10**400}, {"runtime": "x" * 10**5})
    ),
    *(
        ("search", v)
        for v in (3, {"name": 3}, "evolutoin", {"name": "evolution", "population": float("nan")})
    ),
    *(("seed", v) for v in ("x", -1, 2**63, 10**5000, True, 0.5, None)),
    *(
        ("space", v)
        for v in (
            3,
            {"stages": {"tune": {"lr": 10**400}}},
            {"stages": [3]},
            {"stages": {"tune": 5}},
        )
    ),
    *(("virtual_workers", v) for v in (0, -1, True, "x", 1.5, 10**9)),
    ("space", {"initial": [[{"stage": "tune", "params": {"lr": float("inf")}}]]}),
    *(
        ("limits", v)
        for v in ("x", {"workers": True}, {"trial_memory": "9" * 99 + " GiB"}, {"cache": -1})
    ),
]
NO_DIRECTORIES = (
    "",
    " ",
    "a\0b",
    "a\nb",
    "\x1b[2J",
    "~/x",
    "x" * 300,
    "x/" * 3000,
    "/proc/x",
    "/dev/null",
    "/dev/null/x",
)


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, petra.Task]:
    x, y = torch.randn(20, 4), torch.randint(0, 2, (20,))
    return nn.Linear(4, 2), petra.classification((x, y), (x, y), (x, y))


@pytest.mark.parametrize(("name", "value"), WRONG, ids=range(len(WRONG)))
def test_arguments_of_the_wrong_kind(
    problem: tuple[nn.Module, petra.Task], tmp_path: Path, name: str, value: Any
) -> None:
    given = {"budget": {"trials": 1}, "workdir": tmp_path / "out", name: value}
    with pytest.raises(PetraError, match=name.removesuffix("s")) as caught:
        petra.compress(*problem, **given)
    assert len(str(caught.value)) < 3000
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workdir", NO_DIRECTORIES)
def test_unspeakable_directories(problem: tuple[nn.Module, petra.Task], workdir: str) -> None:
    with pytest.raises(PetraError, match="workdir"):
        petra.compress(*problem, budget={"trials": 1}, workdir=workdir)


def test_a_directory_that_could_be_made_is_left_alone(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("directory", [3, None, "/nowhere", "a\0b", "/dev/null", "/proc"])
def test_what_is_no_study(directory: Any) -> None:
    with pytest.raises(PetraError, match=r"no study here|give a path"):
        petra.load_study(directory)
