"""Layers that stay as they are, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from lowrank_nets import TextNet, images
from lowrank_runs import STAGES, Volume, features, ranks_of, run, task_of, tokens
from sequences import recurrent_problem
from torch import nn

from petra.core.errors import StageRefused
from petra.methods.lowrank.cur import CURDecompose
from petra.methods.lowrank.stage import Decompose
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.lowrank.tucker import TuckerDecompose
from petra.model.surgery import count_parameters
from petra.runtimes.onnxruntime import OnnxRuntime


def test_three_dimensional_and_transposed_convolutions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Volume().eval()
    task = task_of(lambda n: zoo.rows(n, 1, 3, 5, 6), 3)
    result, trace = run(SVDDecompose(ratio=0.2), model, task)
    assert set(trace.touched) == {"a", "up", "line", "o"}
    assert [type(m) for m in result.up] == [nn.Conv2d, nn.ConvTranspose2d]
    x = task.example(4)
    (path,) = OnnxRuntime().export(result, task.example(2), tmp_path / "model.onnx")
    (got,) = OnnxRuntime().load(path).run({"input": x.numpy()}).values()
    np.testing.assert_allclose(got, result(x).detach().numpy(), rtol=1e-3, atol=1e-4)
    for how in ({"unfold": "spatial"}, {"decomposer": "whitened", "samples": 32}):
        by_channel, _ = run(SVDDecompose(ratio=0.2, **how), model, task)
        assert [m.kernel_size for m in by_channel.a] == [(3, 3, 3), (1, 1, 1)]
    _, whitened = run(SVDDecompose(decomposer="whitened", samples=32, ratio=0.2), model, task)
    assert "overlap" in whitened.skipped["up"]
    _, tucker = run(TuckerDecompose(ratio=0.2), model, task)
    assert set(tucker.touched) == {"a", "up", "line", "o"}


def test_text_ships_with_a_thin_embedding(tmp_path: Path) -> None:
    model = TextNet().eval()
    task = task_of(tokens, 3)
    result, _ = run(SVDDecompose(ratio=0.3, layers=3), model, task)
    (path,) = OnnxRuntime().export(result, task.example(2), tmp_path / "model.onnx")
    x = tokens(4)
    (got,) = OnnxRuntime().load(path).run({"input": x.numpy()}).values()
    np.testing.assert_allclose(got, result(x).detach().numpy(), rtol=1e-3, atol=1e-4)
    # The weight that the model reads for its type is not composed in the file.
    assert path.stat().st_size < 4 * count_parameters(result) + 12_000
    _, without = run(SVDDecompose(ratio=0.3, embeddings=False), model, task)
    assert "embeddings are left" in without.skipped["e"]


def test_recurrent_layers_stay_whole_and_say_why() -> None:
    model, task = recurrent_problem()
    with pytest.raises(StageRefused) as refused:
        run(SVDDecompose(ratio=0.3), model, task)
    assert "rnn: GRU layers are not decomposed" in refused.value.hint
    assert "prune.recurrent narrows them" in refused.value.hint


def test_refuses_when_nothing_saves() -> None:
    model = zoo.mlp()
    for stage in (SVDDecompose(ratio=0.9), SVDDecompose(rule="energy", energy=0.9999)):
        with pytest.raises(StageRefused, match="no layer becomes cheaper") as refusal:
            run(stage, model, task_of(features, 3))
        assert "saves too little" in refusal.value.hint


@pytest.mark.parametrize("kind", ["svd", "randomized", "whitened", "cur", "tucker"])
def test_one_layer_lowers_the_ranks_where_several_would_save(kind: str) -> None:
    """It computes what they compute, and the trace claims none of their savings."""
    torch.manual_seed(0)
    model, task = zoo.Residual().eval(), task_of(images, 5)
    several = 3 if kind == "tucker" else 2
    one, trace = run(STAGES[kind](ratio=0.3, layers=1), model, task)
    thin, other = run(STAGES[kind](ratio=0.3, layers=several), model, task)
    assert trace.touched == other.touched
    assert ranks_of(trace) == ranks_of(other)
    assert count_parameters(one) == count_parameters(model) > count_parameters(thin)
    assert all(type(one.get_submodule(p)) is type(model.get_submodule(p)) for p in trace.touched)
    torch.testing.assert_close(one(images(4)), thin(images(4)), rtol=1e-4, atol=1e-5)
    for path, record in trace.details["layers"].items():
        dense = model.get_submodule(path).weight.numel()
        assert record["params"] == [dense, dense] != other.details["layers"][path]["params"]
        assert record["macs"] == [other.details["layers"][path]["macs"][0]] * 2


@pytest.mark.parametrize("stage", [SVDDecompose, CURDecompose, TuckerDecompose])
def test_one_layer_may_be_drawn_and_keeps_no_budget(stage: type[Decompose]) -> None:
    generator = np.random.default_rng(0)
    drawn = {stage.card().sample(generator).params["layers"] for _ in range(50)}
    assert drawn == ({1, 3} if stage is TuckerDecompose else {1, 2, 3})
    with pytest.raises(StageRefused, match="no budget is kept"):
        run(stage(rule="budget", layers=1), zoo.mlp(), task_of(features, 3))
