"""Differences of models on the same items: their errors are what they say, by simulation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from petra.core.measurement import Measurement
from petra.core.paired import score_change
from petra.tasks.scorers import RESAMPLES, bootstrap, scorer
from petra.tasks.scores import Accuracy, MeanAbsoluteError, RootMeanSquaredError


def logits(right: Tensor) -> dict[str, Tensor]:
    """Of two classes, of which the second is the target everywhere."""
    return {"logits": torch.stack([1 - right.float(), right.float()], 1)}


def two_models(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which items each gets right: both err on the same ones, most of the time. Equally good."""
    hard = torch.rand(n, generator=g) < 0.3
    own = [torch.rand(n, generator=g) < 0.02 for _ in range(2)]
    return hard.logical_not() ^ own[0], hard.logical_not() ^ own[1]


def test_the_interval_of_a_difference_in_accuracy_covers_and_is_narrow() -> None:
    g = torch.Generator().manual_seed(0)
    n, covered, widths, apart = 400, 0, [], []
    targets, ids = torch.ones(n, dtype=torch.long), torch.arange(n)
    for _ in range(600):
        a, b = two_models(n, g)
        found = Accuracy().difference(logits(a), logits(b), targets, ids)
        assert found.mean == pytest.approx(float(a.double().mean() - b.double().mean()))
        low, high = found.interval
        covered += low <= 0 <= high
        widths.append(found.stderr)
        alone = [Accuracy().measure(logits(x), targets, ids).stderr for x in (a, b)]
        apart.append(math.hypot(*alone))
    assert 0.93 <= covered / 600 <= 0.99
    assert sum(widths) < 0.4 * sum(apart), "pairing gains nothing"


def test_agreement_on_few_items_is_not_certainty() -> None:
    right = torch.ones(20, dtype=torch.bool)
    found = Accuracy().difference(
        logits(right), logits(right), torch.ones(20, dtype=torch.long), torch.arange(20)
    )
    assert found.mean == 0
    assert found.stderr == pytest.approx(1 / 22)


def test_the_bootstrap_agrees_with_the_formula_for_a_mean() -> None:
    g = torch.Generator().manual_seed(1)
    targets = torch.randn(300, 1, generator=g)
    ours, theirs = ({"y": targets + 0.5 * torch.randn(300, 1, generator=g)} for _ in range(2))
    ids = torch.arange(300)
    exact = MeanAbsoluteError().difference(ours, theirs, targets, ids)
    drawn = bootstrap(MeanAbsoluteError(), ours, theirs, targets, ids)
    assert drawn.mean == pytest.approx(exact.mean)
    assert drawn.stderr == pytest.approx(exact.stderr, rel=0.25)
    assert drawn == bootstrap(MeanAbsoluteError(), ours, theirs, targets, ids)


def test_items_of_one_id_are_drawn_together() -> None:
    """Every item there ten times says no more than once."""
    g = torch.Generator().manual_seed(2)
    targets = torch.randn(60, 1, generator=g)
    ours, theirs = ({"y": targets + torch.randn(60, 1, generator=g)} for _ in range(2))
    once = bootstrap(RootMeanSquaredError(), ours, theirs, targets, torch.arange(60))
    ten = [{"y": o["y"].repeat(10, 1)} for o in (ours, theirs)]
    again = torch.arange(60).repeat(10)
    together = bootstrap(RootMeanSquaredError(), ten[0], ten[1], targets.repeat(10, 1), again)
    apart = bootstrap(
        RootMeanSquaredError(), ten[0], ten[1], targets.repeat(10, 1), torch.arange(600)
    )
    assert together.stderr == pytest.approx(once.stderr, rel=0.25)
    assert apart.stderr < 0.5 * once.stderr


@pytest.mark.parametrize("ids", [torch.arange(40), torch.arange(40) // 3, torch.arange(40) % 7])
def test_the_bootstrap_by_loops(ids: Tensor) -> None:
    g = torch.Generator().manual_seed(3)
    targets = torch.randn(40, 1, generator=g)
    ours, theirs = ({"y": targets + torch.randn(40, 1, generator=g)} for _ in range(2))
    names, random, found = sorted(set(ids.tolist())), torch.Generator().manual_seed(0), []
    rmse = RootMeanSquaredError()
    for _ in range(RESAMPLES):
        drawn = torch.randint(len(names), (len(names),), generator=random)
        rows = [i for k in drawn.tolist() for i in range(40) if int(ids[i]) == names[k]]
        index = torch.tensor(rows)
        both = (rmse.value({"y": o["y"][index]}, targets[index], ids) for o in (ours, theirs))
        found.append(next(both) - next(both))
    expected = float(torch.tensor(found, dtype=torch.float64).std())
    assert bootstrap(rmse, ours, theirs, targets, ids).stderr == pytest.approx(expected, rel=1e-6)
    alone = torch.arange(40)
    again = bootstrap(rmse, ours, theirs, targets, alone, ids)
    assert again.stderr == pytest.approx(expected, rel=1e-6), "those of one number, too"


def test_samples_without_a_value_do_not_count() -> None:
    def score(prediction: Tensor, targets: Tensor) -> float:
        return float(prediction.mean()) if len(targets.unique()) > 1 else math.nan

    targets = torch.tensor([0, 0, 0, 1])
    ours, theirs = {"y": torch.rand(4, 1)}, {"y": torch.rand(4, 1)}
    found = scorer(score, maximize=True).difference(ours, theirs, targets, torch.arange(4))
    assert math.isfinite(found.stderr)
    assert found.stderr > 0


def test_without_pairs_a_change_is_that_of_independent_samples() -> None:
    old, new = Measurement(0.9, 0.03, 100), Measurement(0.8, 0.04, 90)
    found = score_change({"quality": new}, {"quality": old}, "quality")
    assert found is not None
    assert (found.mean, found.stderr) == pytest.approx((-0.1, 0.05))
    paired = Measurement(-0.1, 0.01, 90)
    assert (
        score_change({"quality": new, "quality_change": paired}, {"quality": old}, "quality")
        == paired
    )
    assert score_change({}, {"quality": old}, "quality") is None
