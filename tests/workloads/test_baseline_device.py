"""Reference models trained elsewhere than on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from petra.core.errors import DataError
from petra.workloads import baseline
from petra.workloads.table import WORKLOADS


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "cuda\x1b[2J"])
def test_a_device_for_reference_models_that_there_is_none_of_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setenv("PETRA_BASELINE_DEVICE", device)
    with pytest.raises(DataError, match="PETRA_BASELINE_DEVICE") as caught:
        WORKLOADS.get("ucr/Wafer")()
    assert "\x1b" not in str(caught.value)
    assert not [*(root / "cache").glob("*")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_weights_from_a_gpu_are_kept_apart_and_not_trained_where_there_is_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = WORKLOADS.get("ucr/Wafer")
    record()
    (path,) = (root / "cache").iterdir()
    monkeypatch.setenv("PETRA_BASELINE_DEVICE", "cuda:1")
    with pytest.raises(DataError, match="cannot be trained on cuda:1"):
        record()
    # Any GPU's weights serve, and are loaded where there is none.
    with monkeypatch.context() as other:
        other.setattr(baseline, "lacks_cuda", lambda: "")
        other.setattr(baseline, "fit", partial(fit_on_cpu, baseline.fit))
        record()
    monkeypatch.setenv("PETRA_BASELINE_DEVICE", "cuda")
    record()
    (kept,) = {*(root / "cache").iterdir()} - {path}
    monkeypatch.delenv("PETRA_BASELINE_DEVICE")
    kept.unlink()
    record()
    assert [*(root / "cache").iterdir()] == [path]


def fit_on_cpu(fit: Callable[..., Any], *args: Any, device: str, **options: Any) -> Any:
    """In place of a GPU that is not there."""
    assert device == "cuda:1"
    return fit(*args, device="cpu", **options)
