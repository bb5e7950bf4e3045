"""Zeros stay zero: through training, storing, cutting and quantizing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from zeroed_parts import G, weighted
from zeroed_runs import MODEL, TASK, fours, zeros

from petra.core.errors import StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.trial import StageTrace
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.methods.prune.heads import HeadPrune
from petra.methods.prune.unstructured import UnstructuredPrune
from petra.methods.prune.zeros import (
    restore_two_of_four,
)
from petra.methods.table import STAGES
from petra.model.aten.graph import calls_weighted_layer, constant, module_path
from petra.model.description.differences import describe, rebuild, weights
from petra.space.effects import INITIAL_FACTS
from petra.tasks.classification import classification

# -- what comes after ------------------------------------------------------------------------------


def run(*stages: StageSpec) -> tuple[nn.Module, tuple[StageTrace, ...]]:
    def context(prefix: Pipeline) -> Context:
        return Context(task=TASK, teacher=MODEL, seed=derive_seed(0, prefix.key))

    filled = [STAGES.get(s.kind).card().normalize(dict(s.params)) for s in stages]
    return apply_pipeline(
        MODEL, Pipeline(tuple(filled)), context, cache=None, on_stage=lambda i, s: None
    )


PRUNE = StageSpec("prune.unstructured", {"pattern": "two_of_four"})


@pytest.mark.parametrize(
    "after", [StageSpec("tune", {"epochs": 1}), StageSpec("distill", {"epochs": 1})]
)
def test_training_keeps_the_zeros_and_moves_the_rest(after: StageSpec) -> None:
    pruned, _ = run(PRUNE)
    trained, _ = run(PRUNE, after)
    for path, mask in zeros(pruned).items():
        layer, before = trained.get_submodule(path), pruned.get_submodule(path)
        assert torch.equal(layer.weight[mask], before.weight[mask])  # type: ignore[index]
        assert not torch.equal(layer.weight, before.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight_max", [64, 7])
def test_training_for_quantization_keeps_the_zeros(weight_max: int) -> None:
    """Down to the codes that ship, through folded batch norms, while the other weights move."""
    aware = {"epochs": 2, "lr": 0.02, "batch_size": 64, "weight_max": weight_max}
    pruned, _ = run(PRUNE)
    trained, _ = run(PRUNE, StageSpec("quantize.qat", aware))
    static, _ = run(
        PRUNE, StageSpec("quantize.static", {"observer": "minmax", "weight_max": weight_max})
    )
    masks = zeros(pruned)
    codes, untrained = codes_of(trained), codes_of(static)
    assert set(codes) == set(untrained) >= set(list(masks)[1:])
    for path, mask in list(masks.items())[1:]:
        assert mask.float().mean() >= 0.5
        assert not codes[path][mask].any()
        assert not torch.equal(codes[path], untrained[path])


def codes_of(quantized: nn.Module) -> dict[str, Tensor]:
    """The int8 weights of a quantized graph by the path of their layer."""
    assert isinstance(quantized, GraphModule)
    found = {}
    for node in quantized.graph.nodes:
        if (
            calls_weighted_layer(node)
            and (codes := constant(quantized, node.args[1].args[0])) is not None
        ):
            found[module_path(node)] = codes
    return found


def test_a_stored_model_still_keeps_its_zeros() -> None:
    pruned, _ = run(PRUNE)
    again = rebuild(MODEL, describe(pruned, MODEL), weights(pruned))
    assert [p for p, m in again.named_modules() if getattr(m, "keep_zeros", False)] == list(
        zeros(pruned)
    )[1:]
    # The pattern that a later cut restores.
    assert again.get_submodule("block1.conv1").keep_zeros == "two_of_four"


def test_channels_can_still_be_cut() -> None:
    cut, (_, trace, _) = run(
        PRUNE, StageSpec("prune.structured", {"ratio": 0.4}), StageSpec("tune", {"epochs": 1})
    )
    assert trace.details["removed_channels"]
    narrowed = [
        m for p, m in weighted(cut).items() if m.weight.shape != MODEL.get_submodule(p).weight.shape
    ]  # type: ignore[union-attr]
    assert any(getattr(m, "keep_zeros", False) for m in narrowed)
    for layer in (m for m in narrowed if getattr(m, "keep_zeros", False)):
        assert float((layer.weight == 0).float().mean()) > 0.3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("schedule", "importance"), [("one_shot", "random"), ("iterative", "magnitude")]
)
def test_two_of_four_is_kept_when_channels_between_the_fours_go(
    schedule: str, importance: str
) -> None:
    """Single channels go out of every four, so that those left close up to new ones."""
    ratio = {
        "importance": importance,
        "schedule": schedule,
        "ratio": 0.45,
        "round_to": 4,
        "spread": "per_layer",
    }
    pruned, _ = run(PRUNE)
    cut, (_, trace, _) = run(
        PRUNE, StageSpec("prune.structured", ratio), StageSpec("tune", {"epochs": 1})
    )
    narrowed = [
        p
        for p, m in weighted(cut).items()
        if m.weight.shape[1] < pruned.get_submodule(p).weight.shape[1]
    ]  # type: ignore[union-attr, index]
    assert narrowed
    for path in weighted(cut):
        if path != "stem.0":  # three input channels
            assert (fours(cut.get_submodule(path)) <= 2).all(), path
    again = [path for record in trace.details["cuts"] for path in record["two_of_four_again"]]
    assert set(again) <= set(narrowed)
    assert again


def test_after_a_cut_the_larger_two_of_every_four_stay() -> None:
    layer = nn.Linear(8, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 3.0, -2.0, 0.0, 0.0, 0.0, 1.0, 5.0]]))
    layer.keep_zeros = "two_of_four"  # type: ignore[assignment]
    model = nn.Sequential(layer)
    assert restore_two_of_four(model) == {}
    layer.weight = nn.Parameter(layer.weight[:, [1, 2, 6, 7]])
    layer.in_features = 4
    assert restore_two_of_four(model) == {"0": 2}
    assert layer.weight.tolist() == [[3.0, 0.0, 0.0, 5.0]]
    layer.keep_zeros = "anywhere"  # type: ignore[assignment]
    layer.weight = nn.Parameter(torch.ones(1, 4))
    assert restore_two_of_four(model) == {}


def test_a_cut_that_leaves_no_fours_is_refused() -> None:
    with pytest.raises(StageRefused, match="which is no multiple of 4") as refusal:
        run(
            PRUNE,
            StageSpec("prune.structured", {"ratio": 0.3, "round_to": 1, "spread": "per_layer"}),
        )
    assert refusal.value.layer
    assert "a larger round_to" in str(refusal.value.hint)


def test_two_of_four_is_kept_when_heads_smaller_than_four_go() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.TransformerEncoderLayer(16, 8, 24, batch_first=True)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.encoder(x).mean(1))
            return logits

    torch.manual_seed(0)
    model = Net().eval()
    with torch.no_grad():
        for start in (2, 8):  # heads 1 and 4, of two channels each, are the weak ones
            model.encoder.self_attn.in_proj_weight.unflatten(0, (3, 16))[:, start : start + 2] *= (
                1e-3
            )
    x, y = torch.randn(64, 5, 16, generator=G), torch.arange(64) % 4
    context = Context(
        task=classification((x, y), (x, y), (x, y)), teacher=copy.deepcopy(model), seed=1
    )
    model, _ = UnstructuredPrune(pattern="two_of_four").apply(model, context)
    cut, trace = HeadPrune(ratio=0.25, importance="magnitude").apply(model, context)
    assert trace.details["removed"] == {"encoder.self_attn": [1, 4]}
    assert trace.details["two_of_four_again"].keys() == {"encoder.self_attn.out_proj"}
    mixer = cut.get_submodule("encoder.self_attn.out_proj")
    assert mixer.weight.shape == (16, 12)
    assert (fours(mixer) <= 2).all()


def test_it_is_not_done_twice_and_not_before_decomposition() -> None:
    effects = UnstructuredPrune.effects
    assert not effects.objection(INITIAL_FACTS)
    assert effects.objection(effects.after(INITIAL_FACTS)) == "needs dense weights"
    for name in ("lowrank.svd", "repair.reconstruct"):  # they would fill the zeros in again
        facts = effects.after(INITIAL_FACTS | {"cut channels"})
        assert STAGES.get(name).effects.objection(facts) == "needs dense weights"
    for name in ("tune", "distill", "prune.structured", "quantize.static", "quantize.qat"):
        assert not STAGES.get(name).effects.objection(effects.after(INITIAL_FACTS)), name


def test_the_sparsity_means_nothing_where_the_pattern_says_it() -> None:
    card = UnstructuredPrune.card()
    assert card.normalize({"pattern": "two_of_four", "sparsity": 0.7}) == card.normalize(
        {"pattern": "two_of_four"}
    )
    assert math.isclose(float(card.normalize({"sparsity": 0.7}).params["sparsity"]), 0.7)
