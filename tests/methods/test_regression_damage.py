"""The damage that rounding does to a regression, and that the defaults of such a task prevent."""

from __future__ import annotations

from pathlib import Path

import pytest
from regression_parts import after, heavy_tails, rmse, tser, unguarded
from torch import nn

from petra.core.pipeline import StageSpec, Value
from petra.tasks.regression import Regression


def rises(
    model: nn.Module, task: Regression, kind: str = "quantize.static", **params: Value
) -> tuple[float, float]:
    """By which share the error on the test split rises without care and with it."""
    before, spec = rmse(model, task), StageSpec(kind, params)
    without, guarded = (rmse(after(model, t, spec), t) for t in (unguarded(task), task))
    return without / before - 1, guarded / before - 1


def test_of_heavy_tails() -> None:
    """Int8 as a classifier gets it more than doubles the error."""
    model, task = heavy_tails()
    without, guarded = rises(model, task, samples=256)
    assert without > 1.0
    assert guarded < 0.15


@pytest.mark.slow  # trains for some seconds
@pytest.mark.parametrize(("name", "epochs"), [("Tecator", 200), ("FloodModeling1", 60)])
def test_of_real_series(data_root: Path, name: str, epochs: int) -> None:
    """With few weight codes; at all of them nothing is lost."""
    if not (data_root / "tser" / f"{name}.npz").is_file():
        pytest.skip(f"no tser/{name}.npz in {data_root}")
    model, task = tser(data_root, name, epochs=epochs)
    without, guarded = rises(model, task, weight_max=3)
    assert without > 0.05
    assert guarded < 0.75 * without
    assert rises(model, task)[1] < 0.02


@pytest.mark.slow
def test_mixed_precision_takes_the_rest(data_root: Path) -> None:
    if not (data_root / "tser" / "FloodModeling1.npz").is_file():
        pytest.skip(f"no tser/FloodModeling1.npz in {data_root}")
    model, task = tser(data_root, "FloodModeling1", epochs=60)
    _, ends = rises(model, task, weight_max=3)
    _, ranked = rises(model, task, weight_max=3, keep_float=1)
    assert ranked < 0.5 * ends
