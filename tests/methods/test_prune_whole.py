"""The stage: it cuts what it says, to the share asked for, and its result ships."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from pruned_parts import WEIGHTED, build, context_of, task_of
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.prune.statistics import (
    BATCH_SIZE,
    TAYLOR_BATCHES,
)
from petra.methods.prune.structured import StructuredPrune
from petra.model.channels.cut import cut
from petra.model.channels.graph import ChannelGraph
from petra.model.surgery import count_parameters
from petra.tasks.base import Task
from petra.training.loop import predict_all
from petra.workloads.cifar10 import pretrained

# --- the stage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("importance_name", ["magnitude", "bn_scale", "taylor"])
@pytest.mark.parametrize("spread", ["global", "per_layer"])
def test_stage_on_a_trained_network(
    importance_name: str, spread: str, digits_problem: tuple[nn.Module, Task]
) -> None:
    model, task = digits_problem
    stage = StructuredPrune(importance=importance_name, spread=spread, ratio=0.3, round_to=4)
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
    assert count_parameters(pruned) < count_parameters(model)
    # The trace against the models themselves.
    old, new = dict(model.named_modules()), dict(pruned.named_modules())
    changed = {
        path
        for path, m in new.items()
        if [p.shape for p in m.parameters(recurse=False)]
        != [p.shape for p in old[path].parameters(recurse=False)]
    }
    assert set(trace.touched) == changed
    assert not set(trace.touched) & set(trace.skipped)
    assert {path for path, m in old.items() if isinstance(m, WEIGHTED)} <= {
        *trace.touched,
        *trace.skipped,
    }
    assert trace.skipped.get("classifier") or "classifier" in trace.details["outputs_kept"]
    for path, (before, after) in trace.details["channels"].items():
        assert (old[path].out_channels, new[path].out_channels) == (before, after)
        assert after % 4 == 0
        assert after < before
    assert trace.details["removed_channels"] == sum(
        cut["removed_channels"] for cut in trace.details["cuts"]
    )
    ratio = trace.details["removed_channels"] / trace.details["prunable_channels"]
    assert trace.details["achieved_ratio"] == pytest.approx(ratio, abs=1e-4)
    if spread == "global":
        assert (
            abs(trace.details["removed_channels"] - 0.3 * trace.details["prunable_channels"]) <= 2.5
        )
    items = [cut.get("calibration_items") for cut in trace.details["cuts"]]
    assert items == [
        min(TAYLOR_BATCHES * BATCH_SIZE, len(task.train)) if importance_name == "taylor" else None
    ]


def test_same_seed_same_cut(digits_problem: tuple[nn.Module, Task]) -> None:
    model, task = digits_problem
    stage = StructuredPrune(importance="taylor", ratio=0.3, round_to=1)
    global_state = torch.random.get_rng_state()
    first, second = (
        stage.apply(copy.deepcopy(model), context_of(model, task, seed=4))[0] for _ in range(2)
    )
    assert torch.equal(torch.random.get_rng_state(), global_state)
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


def test_iterative_reaches_the_ratio_and_tunes_between(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    model, task = digits_problem
    stage = StructuredPrune(
        ratio=0.4, round_to=1, schedule="iterative", steps=3, epochs_between=1, lr=0.05
    )
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
    cuts = trace.details["cuts"]
    assert [round(c["ratio"], 3) for c in cuts] == [0.133, 0.267, 0.4]
    assert [("tuning" in c, c.get("tuning", {}).get("epochs")) for c in cuts] == [
        (True, 1),
        (True, 1),
        (False, None),
    ]
    assert trace.details["achieved_ratio"] == pytest.approx(0.4, abs=0.01)
    one_shot, _ = StructuredPrune(ratio=0.4, round_to=1).apply(
        copy.deepcopy(model), context_of(model, task)
    )
    tuned, cold = (float(task.loss()(*predict_all(m, task.val))) for m in (pruned, one_shot))
    assert tuned < cold


def test_refusals_leave_the_model_alone() -> None:
    model, inputs, _ = build("residual")
    state = copy.deepcopy(model.state_dict())
    task = task_of(inputs, 5)
    with pytest.raises(StageRefused, match="no channel at all"):
        StructuredPrune(ratio=0.05, round_to=16, spread="per_layer").apply(
            model, context_of(model, task)
        )
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    single = nn.Sequential(nn.Flatten(), nn.Linear(243, 5))
    with pytest.raises(StageRefused, match="no layer has channels"):
        StructuredPrune().apply(single, context_of(single, task))
    norm_free, rows, _ = build("mlp")
    with pytest.raises(StageRefused) as refusal:
        StructuredPrune(importance="bn_scale").apply(
            norm_free, context_of(norm_free, task_of(rows))
        )
    assert "no BatchNorm" in refusal.value.hint


def test_a_cut_that_breaks_is_refused_with_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault injected after the trials: the code starts to count on a width."""
    model, inputs, _ = build("residual")
    state = copy.deepcopy(model.state_dict())
    monkeypatch.setattr("petra.methods.prune.structured.cut", lambda *args, **kwargs: "a fault")
    with pytest.raises(StageRefused, match="a fault") as refusal:
        StructuredPrune(ratio=0.5, round_to=1).apply(model, context_of(model, task_of(inputs, 5)))
    assert refusal.value.layer in {"stem", "conv1", "conv2"}
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_a_group_that_cannot_go_with_the_others_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, _ = build("residual")

    def faulty(graph: ChannelGraph, root: str, channels: list[int], example: Tensor) -> str:
        return "a fault" if root == "conv1" else cut(graph, root, channels, example)

    monkeypatch.setattr("petra.methods.prune.structured.cut", faulty)
    stage = StructuredPrune(ratio=0.5, round_to=1, spread="per_layer")
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 5)))
    assert {**trace.skipped, **trace.details["outputs_kept"]}["conv1"] == "a fault"
    assert pruned.conv1.out_channels == model.conv1.out_channels
    assert trace.details["channels"] == {"stem": [16, 8], "conv2": [16, 8]}


def test_frozen_parameters_and_modes_survive() -> None:
    model, inputs, _ = build("residual")
    model.train()
    model.bn1.eval()
    model.conv1.weight.requires_grad_(False)
    stage = StructuredPrune(ratio=0.5, round_to=1, spread="per_layer")
    pruned, _ = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 5)))
    assert [n for n, p in pruned.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert {n: m.training for n, m in pruned.named_modules()} == {
        n: m.training for n, m in model.named_modules()
    }
    assert all(p.grad is None for p in pruned.parameters())


def test_every_setting_of_the_card_is_accepted() -> None:
    card = StructuredPrune.card()
    generator = np.random.default_rng(0)
    for _ in range(20):
        spec = card.sample(generator)
        stage = StructuredPrune.from_spec(spec)
        assert stage.card().normalize(vars(stage)) == spec


def test_option_a_resnet_is_cut_inside_its_blocks_only(data_root: Path) -> None:
    model = pretrained("resnet20", data_root / "weights" / "resnet20.pt")
    inputs = lambda n: zoo.images(n, 32)  # noqa: E731
    stage = StructuredPrune(ratio=0.2, round_to=4)
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 10)))
    inner = {f"layer{i}.{j}.conv1" for i in (1, 2, 3) for j in range(3)}
    assert set(trace.details["channels"]) <= inner
    assert trace.details["prunable_channels"] == 3 * (16 + 32 + 64)
    assert abs(trace.details["removed_channels"] - 0.2 * 336) <= 2.5
    assert "conv1" in trace.skipped
    assert all(
        f"layer{i}.{j}.conv2" in {**trace.skipped, **trace.details["outputs_kept"]}
        for i in (1, 2, 3)
        for j in range(3)
    )
    x = inputs(4)
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for path in trace.details["channels"]:
            bn = path.replace("conv1", "bn1")
            kept = {v.item() for v in pruned.get_submodule(bn).weight}
            for i, value in enumerate(model.get_submodule(bn).weight):
                if value.item() not in kept:
                    masked.get_submodule(bn).weight[i] = masked.get_submodule(bn).bias[i] = 0
    torch.testing.assert_close(pruned(x), masked(x), rtol=1e-3, atol=1e-4)
