"""Low-rank stages among other stages."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from lowrank_runs import HOW, STAGES, Volume, context_of, ranks_of, run, task_of
from torch import nn

from petra.methods.lowrank.cur import CURDecompose
from petra.methods.lowrank.factorize import svd
from petra.methods.lowrank.stage import RULES
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.lowrank.tucker import TuckerDecompose
from petra.methods.lowrank.unfold import fold, unfold
from petra.methods.prune.structured import StructuredPrune
from petra.model.surgery import count_parameters, layer_shapes, replace_module
from petra.space.effects import DENSE_WEIGHTS, INITIAL_FACTS
from petra.tasks.base import Task
from petra.workloads.cifar10 import pretrained

# --- among other stages ---------------------------------------------------------------------------


def test_effects_and_parameters() -> None:
    for stage in (SVDDecompose, CURDecompose, TuckerDecompose):
        effects = stage.effects
        assert not effects.objection(INITIAL_FACTS)
        assert effects.objection(effects.after(INITIAL_FACTS))  # not twice
        assert effects.objection(INITIAL_FACTS - {DENSE_WEIGHTS})  # zeros would not survive
        assert not StructuredPrune.effects.objection(effects.after(INITIAL_FACTS))
        card = stage.card()
        for rule in RULES:
            assert {p for p in RULES if p in card.normalize({"rule": rule}).params} == {rule}
        generator = np.random.default_rng(0)
        for _ in range(20):
            spec = card.sample(generator)
            assert card.normalize(vars(stage.from_spec(spec))) == spec
    card = SVDDecompose.card()
    assert set(card.normalize({"epochs": 0}).params) == {
        "decomposer", "unfold", "layers", "rule", "ratio", "embeddings", "epochs",
    }  # fmt: skip
    assert {"lr", "orthogonality", "hoyer", "truncate_every"} <= set(
        card.normalize({"epochs": 2}).params
    )
    assert set(card.normalize({"decomposer": "whitened", "epochs": 2}).params) == {
        "decomposer", "samples", "layers", "rule", "ratio", "embeddings",
    }  # fmt: skip


@HOW
def test_a_decomposed_network_can_still_be_pruned(
    how: str, digits_problem: tuple[nn.Module, Task]
) -> None:
    model, task = digits_problem
    thin, trace = run(SVDDecompose(unfold=how, ratio=0.3), model, task)
    pruned, cuts = StructuredPrune(ratio=0.3, round_to=1).apply(
        copy.deepcopy(thin), context_of(model, task)
    )
    assert count_parameters(pruned) < count_parameters(thin) < count_parameters(model)
    inner = {f"{path}.0" for path in trace.touched}
    assert inner & set(cuts.details["channels"])  # ranks are channels too
    assert pruned(task.example(3)).shape == (3, 10)
    for path in trace.touched:  # and the composed weight follows
        module = pruned.get_submodule(path)
        assert module.weight.shape[0] == getattr(
            module[-1], "out_channels", getattr(module[-1], "out_features", 0)
        )


def test_replace_module_refuses_what_is_not_there() -> None:
    with pytest.raises(AttributeError):
        replace_module(zoo.mlp(), "9", nn.Identity())


@HOW
def test_resnet20(how: str, data_root: Path) -> None:
    model = pretrained("resnet20", data_root / "weights" / "resnet20.pt")
    inputs = lambda n: zoo.images(n, 32)  # noqa: E731
    result, trace = run(
        SVDDecompose(unfold=how, rule="energy", energy=0.9), model, task_of(inputs, 10)
    )
    assert len(trace.touched) >= 18

    def macs(net: nn.Module) -> int:
        shapes = layer_shapes(net, lambda m: m(inputs(1)))
        weighted = {p: m for p, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        return sum(
            m.weight[0].numel() * math.prod(out[1:])
            for p, m in weighted.items()
            for _, out in shapes[p]
        )

    saved = [r["macs"] for r in trace.details["layers"].values()]
    assert macs(model) - macs(result) == sum(a - b for a, b in saved) > 0
    assert count_parameters(result) < 0.8 * count_parameters(model)


def test_unfolding_survives_a_round_trip_through_the_stage() -> None:
    """At (nearly) full rank the result is the model: nothing is transposed, dropped or doubled on
    the way.
    """
    torch.manual_seed(0)
    model = Volume().eval()
    for path in ("a", "up", "line"):
        layer = model.get_submodule(path)
        how = "transposed" if path == "up" else "channel"
        W = unfold(layer.weight.detach(), how)
        layer.weight = nn.Parameter(fold(svd(W).truncate(2).compose(), layer.weight.shape, how))
    x = zoo.rows(3, 1, 3, 5, 6)
    for kind in ("svd", "randomized", "cur"):
        stage = STAGES[kind](rule="energy", energy=1.0)
        result, trace = run(stage, model, task_of(lambda n: zoo.rows(n, 1, 3, 5, 6), 3))
        assert {p: r for p, r in ranks_of(trace).items() if p != "o"} == {
            "a": 2,
            "up": 2,
            "line": 2,
        }
        torch.testing.assert_close(result(x), model(x), rtol=1e-3, atol=1e-4)
