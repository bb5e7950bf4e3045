"""The damage that rounding does to a regression, and that the defaults of such a task prevent."""

from __future__ import annotations

from pathlib import Path

import pytest
from regression_parts import after, heavy_tails, rmse, tser, unguarded
from torch import nn

from petra.core.pipeline import StageSpec
from petra.tasks.regression import Regression

STATIC, DYNAMIC = StageSpec("quantize.static"), StageSpec("quantize.dynamic")


def rises(model: nn.Module, task: Regression, *stages: StageSpec) -> tuple[float, float]:
    """By which share the error rises without care and with it."""
    before = rmse(model, task)
    return tuple(rmse(after(model, t, *stages), t) / before - 1 for t in (unguarded(task), task))  # type: ignore[return-value]


@pytest.mark.parametrize("stage", [STATIC, DYNAMIC], ids=str)
def test_of_heavy_tails(stage: StageSpec) -> None:
    model, task = heavy_tails()
    without, with_care = rises(model, task, stage)
    assert without > 0.2
    assert with_care < 0.5 * without


@pytest.mark.parametrize(("name", "epochs"), [("Tecator", 60), ("FloodModeling1", 25)])
def test_of_real_series(data_root: Path, name: str, epochs: int) -> None:
    if not (data_root / "tser" / f"{name}.npz").is_file():
        pytest.skip(f"no tser/{name}.npz in {data_root}")
    model, task = tser(data_root, name, epochs=epochs)
    without, with_care = rises(model, task, STATIC)
    assert with_care < 0.02
    assert without > with_care
