"""Unstructured pruning: exact counts, the right weights, zeros that stay through what comes
after.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from zeroed_parts import G, kinds, weighted

from petra.methods.prune.unstructured import UnstructuredPrune
from petra.methods.prune.weight_scores import input_norms, taylor_scores
from petra.methods.prune.zeros import (
    keep_globally,
    keep_highest,
    keep_two_of_four,
    taylor,
    wanda,
)

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
    # Channel 5 is the second input of the second group, which makes outputs 6 to 11.
    assert silent[6:, 1].all()
    # And the weights of output 7, which are zero themselves.
    assert int(silent.sum()) == 6 * 9 + 3 * 3 * 4 - 9
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
