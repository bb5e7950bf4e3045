"""What every loss, scorer and task promises. Subclass and say which:

class TestMine(LossSuite):
    loss = MyLoss()

    @pytest.fixture
    def batch(self):  # outputs of a model by name, and targets
        return {"output": torch.randn(16, 4)}, torch.randint(0, 4, (16,))
"""

from __future__ import annotations

import math
from typing import ClassVar

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import ConfigError
from petra.core.rng import generator
from petra.execute.judge import checked_scores
from petra.methods.base import Stage
from petra.methods.distill.distill import Distill
from petra.methods.quantize.qat import QuantizationAwareTrain
from petra.methods.tune.tune import Tune
from petra.space.declare import Settable, parameters_of
from petra.tasks.base import Task
from petra.tasks.inputs import Outputs
from petra.tasks.losses import Loss
from petra.tasks.scorers import Scorer
from petra.training.loop import predict_all

Batch = tuple[Outputs, Tensor]
DRAWS = 20


def copies(outputs: Outputs) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in outputs.items()}


def check_settable(value: Settable) -> None:
    """Its parameters are declared in full, can be drawn and set, and refuse what is outside."""
    for p in parameters_of(value):
        assert p.doc
        assert p.limits.contains(p.default)
        for i in range(DRAWS):
            drawn = p.domain.sample(generator(i, p.name))
            assert p.limits.contains(drawn), f"{p.name}: the search may draw it"
            assert getattr(value.setting(**{p.name: drawn}), p.name) == drawn
        with pytest.raises(ConfigError, match=p.name):
            value.setting(**{p.name: math.inf})
    assert value.having({"no such parameter": 1.0}) == value
    assert cloudpickle.loads(cloudpickle.dumps(value)) == value


def check_loss(loss: Loss, batch: Batch) -> None:
    """A finite scalar with a finite gradient that is not all zero, at every setting drawn; what it
    is given stays as it was.
    """
    outputs, target = batch
    for i in range(DRAWS):
        drawn = {p.name: p.domain.sample(generator(i, p.name)) for p in parameters_of(loss)}
        given = {
            name: t.clone().requires_grad_() if t.is_floating_point() else t.clone()
            for name, t in outputs.items()
        }
        wanted = target.clone()
        value = loss.having(drawn)(given, wanted)
        assert value.ndim == 0
        assert torch.isfinite(value)
        real = [t for t in given.values() if t.requires_grad]
        found = [g for g in torch.autograd.grad(value, real, allow_unused=True) if g is not None]
        assert found, "no output has a gradient"
        assert all(torch.isfinite(g).all() for g in found)
        assert any(g.any() for g in found)
        assert all(torch.equal(given[name], outputs[name]) for name in outputs)
        assert torch.equal(wanted, target)


class LossSuite:
    """Conformance tests of one loss."""

    loss: ClassVar[Loss]

    def test_its_parameters_are_declared_in_full(self) -> None:
        assert self.loss.name
        assert self.loss.name != "default"
        check_settable(self.loss)

    def test_it_is_a_finite_scalar_with_a_gradient(self, batch: Batch) -> None:
        check_loss(self.loss, batch)

    def test_each_of_its_parameters_matters(self, batch: Batch) -> None:
        for p in parameters_of(self.loss):
            drawn = {p.domain.sample(generator(i, p.name)) for i in range(DRAWS)}
            values = {float(self.loss.setting(**{p.name: v})(*batch)) for v in drawn}
            assert len(values) > 1, f"{p.name} changes nothing"


def check_scorer(scorer: Scorer, batch: Batch) -> None:
    """A finite value with a standard error over the items, whatever their order; what it is given
    stays as it was.
    """
    outputs, targets = batch
    ids = torch.arange(len(targets))
    given, wanted = copies(outputs), targets.clone()
    found = scorer.measure(given, wanted, ids)
    assert math.isfinite(found.mean)
    assert math.isfinite(found.stderr)
    assert found.stderr >= 0
    assert found.n >= 1
    assert all(torch.equal(given[name], outputs[name]) for name in outputs)
    assert torch.equal(wanted, targets)
    assert scorer.value(outputs, targets, ids) == pytest.approx(found.mean, rel=1e-9)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    moved = {name: t[order] for name, t in outputs.items()}
    assert scorer.value(moved, targets[order], ids[order]) == pytest.approx(found.mean, rel=1e-5)


class ScorerSuite:
    """Conformance tests of one scorer. The fixtures are items, and worse predictions for them."""

    scorer: ClassVar[Scorer]

    def test_it_describes_itself(self) -> None:
        metric = self.scorer.metric
        assert metric.sampled
        assert isinstance(metric.maximize, bool)
        assert metric == self.scorer.metric
        assert cloudpickle.loads(cloudpickle.dumps(self.scorer)).metric == metric

    def test_it_measures(self, batch: Batch) -> None:
        check_scorer(self.scorer, batch)

    def test_its_direction_is_right(self, batch: Batch, worse: Outputs) -> None:
        outputs, targets = batch
        ids = torch.arange(len(targets))
        good, bad = (self.scorer.value(o, targets, ids) for o in (outputs, worse))
        assert (good > bad) == self.scorer.metric.maximize

    def test_four_times_the_items_halve_its_error(self, batch: Batch) -> None:
        outputs, targets = batch
        many = {name: t.repeat(4, *[1] * (t.ndim - 1)) for name, t in outputs.items()}
        wanted = targets.repeat(4, *[1] * (targets.ndim - 1))
        once = self.scorer.measure(outputs, targets, torch.arange(len(targets))).stderr
        more = self.scorer.measure(many, wanted, torch.arange(len(wanted))).stderr
        assert 0.3 * once < more < 0.75 * once


class TaskSuite:
    """Conformance tests of one task. The fixture is a small model and the task."""

    stages: ClassVar[tuple[type[Stage], ...]] = (Tune, Distill, QuantizationAwareTrain)

    @pytest.fixture
    def batch(self, problem: tuple[nn.Module, Task]) -> Batch:
        model, task = problem
        return predict_all(model, task.val)

    def test_its_losses_are_losses(self, problem: tuple[nn.Module, Task], batch: Batch) -> None:
        _, task = problem
        names = [loss.name for loss in task.losses()]
        assert len(set(names)) == len(names) > 0
        for loss in task.losses():
            check_settable(loss)
            check_loss(loss, batch)
            assert task.loss(loss.name) == loss
        assert task.loss() == task.losses()[0]

    def test_its_distance_is_one(self, problem: tuple[nn.Module, Task], batch: Batch) -> None:
        _, task = problem
        check_settable(task.distance())
        outputs, _ = batch
        same = float(task.distance()(outputs, copies(outputs)))
        noisy = {n: t + t.std() if t.is_floating_point() else t for n, t in outputs.items()}
        flipped = {n: t.flip(0) for n, t in noisy.items()}
        assert same == pytest.approx(0.0, abs=1e-6)
        assert float(task.distance()(flipped, outputs)) > 1e-6

    def test_its_scorers_are_scorers(self, problem: tuple[nn.Module, Task], batch: Batch) -> None:
        _, task = problem
        outputs, targets = batch
        for scorer in task.scorers():
            check_scorer(scorer, batch)
        arrays = {name: t.numpy() for name, t in outputs.items()}
        found = checked_scores(task, arrays, targets.numpy())
        assert list(found) == ["quality", *(metric.name for metric in task.metrics()[1:])]
        assert found["quality"].mean == pytest.approx(task.score(outputs, targets).mean)

    def test_stages_take_its_parameters(self, problem: tuple[nn.Module, Task]) -> None:
        """Drawn, written and read back; the stage trains with the loss that the pipeline names."""
        _, task = problem
        for stage in self.stages:
            card = stage.card_for(task)
            for i in range(DRAWS):
                spec = card.sample(generator(i))
                assert card.normalize(spec.params) == spec
                built = stage.from_spec(spec, task)
                loss = task.loss(str(spec.params.get("loss", "default")))
                given = card.values(spec)
                expected = loss.having(given)
                assert loss.having(built.brought) == expected  # type: ignore[attr-defined]

    def test_its_data_fits_the_model(self, problem: tuple[nn.Module, Task], batch: Batch) -> None:
        _, task = problem
        outputs, targets = batch
        first = next(iter(outputs.values()))
        task.check(first, targets, where="val split")
