"""What every stage promises. Subclass and say which stage:

class TestMine(StageSuite):
    stage = MyStage
    fast = {"epochs": 1}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.core.rng import derive_seed, generator
from petra.core.trial import FULL, Fidelity, StageTrace
from petra.execute.apply import apply_pipeline
from petra.measure.operations import count_macs
from petra.methods.base import Context, Stage
from petra.methods.facts import facts_after
from petra.methods.table import STAGES
from petra.model.copies.copying import copy_model
from petra.model.description.state_hash import state_hash
from petra.model.outline import outline_of
from petra.model.surgery import count_parameters
from petra.runtimes.base import Runtime
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.space.effects import FLOAT_WEIGHTS
from petra.space.space import StageCard
from petra.tasks.base import Task
from petra.tasks.classification import classification


class ResidualNet(nn.Module):
    """Small, but with what stages meet: stem, residual blocks, batch norm, pooling, classifier."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.block1, self.block2, self.block3 = (_Block(width) for _ in range(3))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


def small_problem() -> tuple[nn.Module, Task]:
    """A `ResidualNet` with settled batch statistics, and random images whose label is their
    brightest channel.
    """
    g = torch.Generator().manual_seed(0)
    x = torch.randn(192, 3, 8, 8, generator=g)
    y = x.mean((2, 3)).argmax(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResidualNet()
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(x)
    return model.eval(), classification(
        (x[:128], y[:128]), (x[128:160], y[128:160]), (x[160:], y[160:])
    )


def _value(stage: Stage, name: str) -> object:
    """The value of a parameter, of a member of a family too."""
    head, dot, member = name.partition(".")
    return getattr(stage, head)[member] if dot else getattr(stage, head)


class StageSuite:
    """Conformance tests of one stage.

    `fast` are parameter values that keep it to seconds; `before` are stages without which it has
    nothing to do; `runtime` is one that has kernels for the result; `size_within` is by what share
    its file may be smaller without training.
    """

    stage: ClassVar[type[Stage]]
    fast: ClassVar[Mapping[str, Value]] = {}
    before: ClassVar[tuple[StageSpec, ...]] = ()
    runtime: ClassVar[type[Runtime]] = OnnxRuntime
    size_within: ClassVar[float] = 1e-3

    @pytest.fixture
    def problem(self) -> tuple[nn.Module, Task]:
        return small_problem()

    def card(self, model: nn.Module) -> StageCard:
        """The declaration for this model."""
        return self.stage.card(outline_of(model))

    def spec(self, model: nn.Module) -> StageSpec:
        return self.card(model).normalize(dict(self.fast))

    def run(
        self, model: nn.Module, task: Task, *, seed: int = 0, spec: StageSpec | None = None
    ) -> tuple[nn.Module, StageTrace]:
        """The stage as the engine runs it."""
        result, traces = self.run_at(FULL, model, task, seed=seed, spec=spec)
        return result, traces[-1]

    def run_at(
        self,
        fidelity: Fidelity,
        model: nn.Module,
        task: Task,
        *,
        seed: int = 0,
        spec: StageSpec | None = None,
    ) -> tuple[nn.Module, tuple[StageTrace, ...]]:
        """The stage, after those of `before`, at a fidelity."""

        def context(prefix: Pipeline) -> Context:
            return Context(task=task, teacher=model, seed=derive_seed(seed, prefix.key))

        pipeline = Pipeline((*self.before, spec or self.spec(model)))
        return apply_pipeline(
            model,
            pipeline,
            context,
            fidelity=fidelity,
            cache=None,
            on_stage=lambda index, spec: None,
        )

    def test_its_card_is_complete(self, problem: tuple[nn.Module, Task]) -> None:
        card = self.card(problem[0])
        assert card.name == self.stage.name
        assert card.summary
        assert "When it helps" in (self.stage.__doc__ or "")
        facts = facts_after(Pipeline(self.before))
        assert card.effects.objection(facts) == "", "a stage must be legal on some model"
        for p in card.parameters:
            assert p.doc
            assert p.limits.contains(p.default)
            for i in range(50):
                assert p.limits.contains(p.domain.sample(generator(i, p.name))), (
                    f"{p.name}: the search may draw it"
                )

    def test_without_a_model_its_card_covers_any(self, problem: tuple[nn.Module, Task]) -> None:
        """What it declares for a model, rich or bare, may be set before the model is known."""
        general = self.stage.card().parameters
        for model in (problem[0], nn.Sequential(nn.ReLU())):
            for p in self.card(model).parameters:
                (covering,) = [g for g in general if g.stands_for(p.name)]
                assert covering.limits.contains(p.default)
                for i in range(20):
                    assert covering.limits.contains(p.domain.sample(generator(i, p.name)))

    def test_every_sample_builds_the_stage(self, problem: tuple[nn.Module, Task]) -> None:
        outline = outline_of(problem[0])
        for i in range(50):
            spec = self.stage.card(outline).sample(generator(i))
            built = self.stage.from_spec(spec, None, outline)
            assert {k: _value(built, k) for k in spec.params} == dict(spec.params)

    def test_it_acts_and_leaves_its_input_alone(self, problem: tuple[nn.Module, Task]) -> None:
        model, task = problem
        before = state_hash(model)
        result, trace = self.run(model, task)
        assert state_hash(model) == before
        assert state_hash(result) != before
        assert trace.touched

    def test_its_modules_are_declared(self, problem: tuple[nn.Module, Task]) -> None:
        """Classes that are neither torch's nor petra's nor the model's are those that it brings."""
        model, task = problem
        result, _ = self.run(model, task)
        known = {*map(type, model.modules()), *self.stage.modules()}
        for module in result.modules():
            foreign = not type(module).__module__.startswith(("torch.", "petra.", "torchao."))
            assert not foreign or type(module) in known, f"{type(module).__name__} is not declared"

    def test_it_has_no_objection_to_a_model_it_treats(
        self, problem: tuple[nn.Module, Task]
    ) -> None:
        model, task = problem
        before = state_hash(model)
        assert self.stage.objection(model, task) == ""
        assert state_hash(model) == before

    def test_its_trace_names_real_layers(self, problem: tuple[nn.Module, Task]) -> None:
        model, task = problem
        _, trace = self.run(model, task)
        known = {name for name, _ in model.named_modules()}
        assert set(trace.touched) <= known
        assert set(trace.skipped) <= known
        assert not set(trace.touched) & set(trace.skipped)
        assert all(trace.skipped.values()), "a skipped layer has a reason"

    def test_the_same_seed_gives_the_same_model(self, problem: tuple[nn.Module, Task]) -> None:
        model, task = problem
        x = task.example(8)
        outputs = []
        for noise in (1, 2):
            torch.manual_seed(noise)
            result, _ = self.run(model, task)
            with torch.no_grad():
                outputs.append(result(x))
        assert torch.equal(*outputs)

    def test_outputs_keep_their_shape_at_any_batch(self, problem: tuple[nn.Module, Task]) -> None:
        model, task = problem
        result, _ = self.run(model, task)
        for n in (1, 2, 5):
            with torch.no_grad():
                x: Any = task.example(n)
                assert result(x).shape == model(x).shape

    def test_its_result_ships(self, problem: tuple[nn.Module, Task], tmp_path: Path) -> None:
        """Exported, reloaded, and in agreement with the PyTorch model."""
        model, task = problem
        result, _ = self.run(model, task)
        x: Any = task.example(32)
        runtime = self.runtime()
        (path,) = runtime.export(result, task.example(2), tmp_path / f"model{runtime.suffix}")
        (got,) = runtime.load(path).run({"input": x.numpy()}).values()
        with torch.no_grad():
            expected = result(x).numpy()
        tolerance = 1e-4 if FLOAT_WEIGHTS not in self.stage.effects.removes else 0.1
        assert np.sqrt(np.mean((got - expected) ** 2)) <= tolerance * np.std(expected)

    def test_without_training_its_result_costs_the_same(
        self, problem: tuple[nn.Module, Task], tmp_path: Path
    ) -> None:
        """Parameters and multiply-accumulates equal, bytes nearly (constants that happen to be
        equal are stored once); where nothing trains, all of it bit for bit.
        """
        model, task = problem
        stage = self.stage.from_spec(self.spec(model), task, outline_of(model))
        full, _ = self.run(model, task)
        bare, traces = self.run_at(Fidelity(zero_shot=True), model, task)
        earlier = [STAGES.get(s.kind).from_spec(s, task, outline_of(model)) for s in self.before]
        assert (stage.untrained() == stage) == (not stage.training_epochs())
        if not any(s.training_epochs() for s in (*earlier, stage)):
            assert state_hash(bare) == state_hash(full)
            return
        left = [s for s in (*earlier, stage) if s.untrained() is not None]
        assert [t.stage for t in traces] == [s.name for s in left]
        assert state_hash(bare) != state_hash(full)
        runtime = self.runtime()
        counts, sizes = [], []
        for name, result in (("full", full), ("bare", bare)):
            files = runtime.export(result, task.example(2), tmp_path / f"{name}{runtime.suffix}")
            sizes.append(sum(file.stat().st_size for file in files))
            counts.append((count_parameters(result), count_macs(result, task.example(2))))
        assert counts[0] == counts[1]
        assert sizes[0] == pytest.approx(sizes[1], rel=self.size_within)

    def test_structure_that_it_says_no_weight_decides_is_that_of_other_weights_too(
        self, problem: tuple[nn.Module, Task]
    ) -> None:
        """Widths, ranks, what stays in float: costs are asked for before training on its word."""
        model, task = problem
        outline, specs = outline_of(model), (*self.before, self.spec(model))
        stages = [STAGES.get(s.kind).from_spec(s, task, outline) for s in specs]
        if any(s.structure_from_weights for s in stages) or stages[-1].untrained() is None:
            return
        other = copy_model(model)
        draws = torch.Generator().manual_seed(1)
        for p in other.parameters():
            p.data *= torch.empty_like(p).uniform_(0.2, 1.8, generator=draws)
        bare = Fidelity(zero_shot=True)
        one, two = (self.run_at(bare, given, task)[0].state_dict() for given in (model, other))
        assert {n: t.shape for n, t in one.items()} == {n: t.shape for n, t in two.items()}

    def test_it_refuses_a_model_it_cannot_treat(self) -> None:
        """A model without weights: nothing to do is an error in words, never a success."""
        split = torch.randn(8, 4), torch.randint(0, 4, (8,))
        task = classification(split, split, split)
        model = nn.Sequential(nn.ReLU())
        with pytest.raises(StageRefused) as caught:
            self.run(model, task, spec=self.card(model).normalize({}))
        assert str(caught.value)
