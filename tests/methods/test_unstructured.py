"""Unstructured pruning: exact counts, the right weights, zeros that stay through what comes
after.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from petra.core.errors import StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.trial import StageTrace
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.methods.prune.heads import HeadPrune
from petra.methods.prune.unstructured import UnstructuredPrune
from petra.methods.prune.weight_scores import input_norms, taylor_scores
from petra.methods.prune.zeros import (
    keep_globally,
    keep_highest,
    keep_two_of_four,
    restore_two_of_four,
    taylor,
    wanda,
)
from petra.methods.table import STAGES
from petra.model.aten.graph import constant, is_weighted, module_path
from petra.model.description.differences import describe, rebuild, weights
from petra.space.effects import INITIAL_FACTS
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.testing.stage_suite import small_problem
from petra.workloads.digits import DigitsNet

G = torch.Generator().manual_seed(0)
MODEL, TASK = small_problem()
CONTEXT = Context(task=TASK, teacher=MODEL, seed=1)


def applied(**parameters: object) -> tuple[nn.Module, StageTrace]:
    return UnstructuredPrune(**parameters).apply(copy.deepcopy(MODEL), CONTEXT)


def weighted(model: nn.Module) -> dict[str, nn.Module]:
    return {path: m for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def zeros(model: nn.Module) -> dict[str, Tensor]:
    return {path: m.weight == 0 for path, m in weighted(model).items()}  # type: ignore[misc]


# -- masks -----------------------------------------------------------------------------------------


def test_exactly_the_lowest_go() -> None:
    scores = torch.randn(5, 7, generator=G).abs()
    for count in (0, 1, 17, 35):
        mask = keep_highest(scores, count)
        assert int((~mask).sum()) == count
        assert all(
            a <= b for a, b in itertools.product(scores[~mask].tolist(), scores[mask].tolist())
        )
    assert int((~keep_highest(torch.ones(4, 4), 5)).sum()) == 5  # ties do not take more along


def test_global_ranking_is_one_ranking_of_all() -> None:
    scores = {
        "a": torch.randn(40, 5, generator=G).abs(),
        "b": 3 * torch.randn(30, 10, generator=G).abs(),
    }
    masks = keep_globally(scores, 0.4)
    gone = torch.cat([scores[p][~masks[p]] for p in scores])
    stay = torch.cat([scores[p][masks[p]] for p in scores])
    assert len(gone) == 200
    assert gone.max() <= stay.min()
    assert (~masks["a"]).float().mean() > 2 * (~masks["b"]).float().mean()


def test_a_global_ranking_empties_no_layer() -> None:
    scores = {
        "weak": torch.rand(10, 20, generator=G) * 1e-3,
        "strong": 1 + torch.rand(10, 20, generator=G),
    }
    masks = keep_globally(scores, 0.5)
    assert int(masks["weak"].sum()) == 2  # a hundredth, its highest
    assert scores["weak"][masks["weak"]].min() >= scores["weak"][~masks["weak"]].max()
    assert int(masks["weak"].sum() + masks["strong"].sum()) == 200


def test_two_of_four_by_trying_all_pairs() -> None:
    scores = torch.rand(3, 8, generator=G)
    mask = keep_two_of_four(scores)
    for row, kept in zip(scores, mask, strict=True):
        for start in (0, 4):
            four, chosen = row[start : start + 4], kept[start : start + 4]
            best = max(
                itertools.combinations(range(4), 2), key=lambda pair: float(four[list(pair)].sum())
            )
            assert tuple(chosen.nonzero().flatten().tolist()) == best
    assert keep_two_of_four(torch.ones(1, 4)).sum() == 2


# -- scores ----------------------------------------------------------------------------------------


def test_taylor_is_the_change_of_a_linear_loss() -> None:
    """For a loss linear in the weights, |w dL/dw| is exactly what the loss changes by when a weight
    goes.
    """
    w, x = torch.randn(4, generator=G), torch.randn(4, generator=G)
    for i in range(4):
        without = w.clone()
        without[i] = 0
        assert float(taylor(w, x)[i]) == pytest.approx(abs(float(w @ x - without @ x)), rel=1e-4)


class Kinds(nn.Module):
    """One layer of each kind on one input, each with its own inputs' norms; one never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2)
        self.up = nn.ConvTranspose2d(12, 4, 2, groups=2)
        self.head, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.up(self.grouped(self.first(x))).mean((2, 3)))
        return logits


def kinds() -> tuple[Kinds, Context]:
    torch.manual_seed(0)
    model = Kinds().eval()
    x, y = torch.randn(32, 4, 5, 5, generator=G), torch.randint(0, 3, (32,), generator=G)
    return model, Context(task=classification((x, y), (x, y), (x, y)), teacher=model, seed=1)


def test_input_norms_by_hand() -> None:
    model, context = kinds()
    x, _ = next(context.task.train.batches(32))
    got = input_norms(model, weighted(model) | {"up": model.up}, context)
    with torch.no_grad():
        at = {"first": x, "grouped": model.first(x)}  # type: ignore[arg-type]
        at["up"] = model.grouped(at["grouped"])
        pooled = model.up(at["up"]).mean((2, 3))
    expected = {
        p: [float(t[:, c].pow(2).sum().sqrt()) for c in range(t.shape[1])] for p, t in at.items()
    }
    expected["head"] = [float(pooled[:, c].norm()) for c in range(4)]
    assert set(got) == set(expected)
    for path, norms in expected.items():
        assert got[path].tolist() == pytest.approx(norms, rel=1e-4)


def test_wanda_multiplies_every_weight_by_the_norm_of_its_input() -> None:
    """By silencing one input channel at a time: exactly the weights that read it score zero."""
    assert wanda(torch.tensor([[-2.0, 3.0]]), torch.tensor([[0.5, 2.0]])).tolist() == [[1.0, 6.0]]
    model, context = kinds()
    layers = {"first": model.first, "grouped": model.grouped, "up": model.up, "head": model.head}
    stage = UnstructuredPrune(importance="wanda")
    with torch.no_grad():
        model.first.weight[5], model.first.bias[5] = 0.0, 0.0  # type: ignore[index]
        model.grouped.weight[7], model.grouped.bias[7] = 0.0, 0.0  # type: ignore[index]
    scores = stage._scores(model, layers, context)
    silent = scores["grouped"] == 0
    assert silent[
        6:, 1
    ].all()  # channel 5 is the second input of the second group, which makes outputs 6 to 11
    assert (
        int(silent.sum()) == 6 * 9 + 3 * 3 * 4 - 9
    )  # and the weights of output 7, which are zero themselves
    assert torch.equal(scores["up"].flatten(1).eq(0).all(1), torch.arange(12) == 7)


def test_taylor_scores_against_one_gradient_by_hand() -> None:
    model, context = kinds()
    scores = taylor_scores(model, {"first": model.first, "unused": model.unused}, context)
    x, y = next(context.task.train.batches(64, seed=context.seed_for("importance")))
    loss = nn.functional.cross_entropy(model(x), y)
    (gradient,) = torch.autograd.grad(loss, model.first.weight)
    assert set(scores) == {"first"}
    assert torch.allclose(
        scores["first"], (model.first.weight * gradient).abs().detach(), rtol=1e-4, atol=1e-8
    )


# -- the stage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "wanda"])
@pytest.mark.parametrize("scope", ["global", "per_layer"])
def test_the_share_asked_for_becomes_zero(scope: str, importance: str) -> None:
    model, trace = applied(sparsity=0.6, scope=scope, importance=importance)
    gone = zeros(model)
    total = sum(z.numel() for z in gone.values())
    assert sum(int(z.sum()) for z in gone.values()) / total == pytest.approx(0.6, abs=0.001)
    assert trace.details["sparsity"] == pytest.approx(0.6, abs=0.001)
    shares = [float(z.float().mean()) for z in gone.values()]
    assert (max(shares) - min(shares) < 0.05) == (scope == "per_layer")
    before, after = trace.details["zipped_weight_bytes"]  # type: ignore[misc]
    assert after < 0.75 * before


def test_what_is_kept_is_what_was_there() -> None:
    model, _ = applied(sparsity=0.5)
    for path, layer in weighted(model).items():
        original = MODEL.get_submodule(path).weight
        kept = layer.weight != 0
        assert torch.equal(layer.weight[kept], original[kept])  # type: ignore[index]


def test_two_in_every_four_inputs_remain() -> None:
    model, trace = applied(pattern="two_of_four")
    for path in trace.touched:
        weight: Tensor = model.get_submodule(path).weight  # type: ignore[assignment]
        fours = weight.movedim(1, -1).unflatten(-1, (-1, 4)) != 0
        assert (fours.sum(-1) == 2).all()
    assert set(trace.skipped) == {"stem.0"}  # three input channels
    assert "3 inputs" in trace.skipped["stem.0"]
    assert not (model.stem[0].weight == 0).any()  # type: ignore[union-attr, index]


def test_two_of_four_stays_inside_groups() -> None:
    model, context = kinds()
    result, trace = UnstructuredPrune(pattern="two_of_four").apply(model, context)
    assert set(trace.touched) == {"first", "grouped", "head", "unused"}
    assert set(trace.skipped) == {"up"}  # six inputs per group
    fours = result.grouped.weight.movedim(1, -1) != 0  # type: ignore[union-attr, operator]
    assert fours.shape[-1] == 4
    assert (fours.sum(-1) == 2).all()


def test_layers_that_must_stay_are_skipped_with_the_reason() -> None:
    model, context = kinds()
    model.unused.weight = model.head.weight
    nn.utils.parametrizations.weight_norm(model.first)
    result, trace = UnstructuredPrune(importance="wanda").apply(model, context)
    assert "computed from other" in trace.skipped["first"]
    assert "'unused'" in trace.skipped["head"]
    assert set(trace.touched) == {"grouped", "up"}
    assert (result.head.weight != 0).all()  # type: ignore[union-attr, operator]
    model, context = kinds()
    _, trace = UnstructuredPrune(importance="taylor").apply(model, context)
    assert "gets no gradient" in trace.skipped["unused"]


def test_refusals() -> None:
    with pytest.raises(StageRefused, match="becomes zero that is not zero already"):
        applied(sparsity=0.0001, scope="per_layer")
    with pytest.raises(StageRefused, match="no linear or convolutional"):
        UnstructuredPrune().apply(nn.Sequential(nn.BatchNorm2d(3)), CONTEXT)


def test_low_weights_cost_less_than_high_ones(digits_problem: tuple[DigitsNet, Task]) -> None:
    """Every importance beats a mask of the same share drawn at random, by far."""
    model, task = digits_problem
    context = Context(task=task, teacher=model, seed=1)
    x, y = next(task.val.batches(1000))

    def loss(m: nn.Module) -> float:
        with torch.no_grad():
            return float(task.loss()({"output": m(x)}, y))

    at_random = copy.deepcopy(model)
    for layer in weighted(at_random).values():
        layer.weight.data.mul_(torch.rand(layer.weight.shape, generator=G) > 0.5)
    for importance in ("magnitude", "taylor", "wanda"):
        pruned, _ = UnstructuredPrune(sparsity=0.5, importance=importance).apply(
            copy.deepcopy(model), context
        )
        assert loss(pruned) - loss(model) < 0.25 * (loss(at_random) - loss(model)), importance


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
        if is_weighted(node) and (codes := constant(quantized, node.args[1].args[0])) is not None:
            found[module_path(node)] = codes
    return found


def test_a_stored_model_still_keeps_its_zeros() -> None:
    pruned, _ = run(PRUNE)
    again = rebuild(MODEL, describe(pruned, MODEL), weights(pruned))
    assert [p for p, m in again.named_modules() if getattr(m, "keep_zeros", False)] == list(
        zeros(pruned)
    )[1:]
    assert (
        again.get_submodule("block1.conv1").keep_zeros == "two_of_four"
    )  # the pattern that a later cut restores


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


def fours(layer: Any) -> Tensor:
    """Weights left in every four along a layer's inputs."""
    return (layer.weight != 0).movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1)


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
