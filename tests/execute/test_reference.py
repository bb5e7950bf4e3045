"""The reference predictions of the parity check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from petra.execute.reference import PARITY_ITEMS, save_reference
from petra.measure.bench_main import predict
from petra.measure.stored import load_arrays, load_split
from petra.runtimes.base import Arrays, LoadedModel


class Centred(nn.Module):
    """Depends on what else is in the batch, as dynamically quantized layers do."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class LoadedTorch(LoadedModel):
    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"output": Centred()(torch.from_numpy(inputs["input"])).numpy()}


def test_it_is_predicted_in_the_batches_of_the_artifact(tmp_path: Path) -> None:
    for n in (300, 2 * PARITY_ITEMS + 77):
        (tmp_path / "data").mkdir(exist_ok=True)
        np.save(
            tmp_path / "data" / "input.npy",
            np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32),
        )
        save_reference(Centred(), tmp_path / "data", torch.zeros(2, 3), tmp_path / "reference.npz")
        reference = load_arrays(tmp_path / "reference.npz")["output"]
        assert len(reference) == min(n, PARITY_ITEMS)
        predicted = predict(LoadedTorch(()), load_split(tmp_path / "data"))["output"]
        np.testing.assert_array_equal(reference, predicted[: len(reference)])
