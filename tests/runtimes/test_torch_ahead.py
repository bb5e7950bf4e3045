"""Compiled ahead of time: agrees with the program, runs at any batch, and no runtime of ours opens
it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import ArtifactError, ParityError
from petra.runtimes import torch_ahead
from petra.runtimes.torch_ahead import compile_ahead
from petra.runtimes.torch_eager import TorchEager

ITEMS = {"input": np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)}


def exported(directory: Path) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    return TorchEager().export(model, torch.randn(2, 4), directory / "model.pt2")[0]


@pytest.mark.slow
def test_a_package_agrees_and_stays_closed_to_the_runtimes(tmp_path: Path) -> None:
    program, package = exported(tmp_path), tmp_path / "model.aot.pt2"
    assert compile_ahead(program, package, ITEMS) < 1e-5
    with pytest.raises(ArtifactError, match="compiled"):
        TorchEager().load(package)
    compiled = torch._inductor.aoti_load_package(str(package))
    expected = TorchEager().load(program).run(ITEMS)["output"]
    for n in (1, 3, 5):
        value = compiled(torch.from_numpy(ITEMS["input"][:n]))
        assert isinstance(value, Tensor)
        np.testing.assert_allclose(value.numpy(), expected[:n], atol=1e-6)


def test_what_computes_something_else_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison itself, with a compiler that gets the signs wrong."""
    program, package = exported(tmp_path), tmp_path / "model.aot.pt2"
    module = torch.export.load(str(program)).module(check_guards=False)
    monkeypatch.setattr(
        torch._inductor, "aoti_compile_and_package", lambda program, package_path: package.touch()
    )
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: lambda x: -module(x))
    with pytest.raises(ParityError, match="batch of 1"):
        torch_ahead.compile_ahead(program, package, ITEMS)
    assert not package.exists()


def test_a_package_needs_its_suffix(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"\.pt2"):
        compile_ahead(exported(tmp_path), tmp_path / "model.so", ITEMS)
