"""Methods on architectures nobody wrote for them: the zoo, what a cell says, and a sample of the
full tables.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.table import STAGES
from petra.model.description.state_hash import state_hash
from petra.model.surgery import count_parameters
from petra.space.domains import Choice
from petra.space.effects import Effects
from petra.space.space import Space
from petra.tasks.inputs import call, named_outputs, prediction
from petra.testing.architectures import _BUILDERS, ARCHITECTURES
from petra.testing.coverage import (
    ACTS,
    FAILS,
    REFUSES,
    UNAVAILABLE,
    Cell,
    attempt,
    cheap_cards,
    draw_chains,
    shortest_pipeline,
)

HUGGING_FACE = {
    name.replace("_", "-")
    for module in ("hugging_face", "forecasting")
    for name in _BUILDERS[module]
}
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="the extra `text` is not installed"
)


def entry(name: str, *others: str, slow: bool) -> object:
    """An architecture as a test parameter."""
    marks = [needs_transformers] if name in HUGGING_FACE else []
    return pytest.param(name, *others, marks=[*marks, pytest.mark.slow] if slow else marks)


FEW = {"bert"}
ZOO = [entry(name, slow=name in HUGGING_FACE - FEW) for name in ARCHITECTURES]

# -- the zoo ---------------------------------------------------------------------------------------


def test_there_are_enough() -> None:
    assert len(ARCHITECTURES.names()) >= 40


@pytest.mark.parametrize("name", ZOO)
def test_an_architecture_is_small_settled_and_always_the_same(name: str) -> None:
    model, task = ARCHITECTURES.get(name)()
    assert not model.training
    assert count_parameters(model) < 10**6
    assert state_hash(model) == state_hash(ARCHITECTURES.get(name)()[0])
    inputs, target = next(task.val.batches(32))
    with torch.no_grad():
        outputs = named_outputs(call(model, inputs))
    task.check(prediction(outputs), target, where=name)
    for value in outputs.values():
        assert torch.isfinite(value).all()
        assert value.std(0).mean() > 0.05 * value.std(), "items can be told apart"
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            assert not torch.equal(module.running_var, torch.ones_like(module.running_var))


@pytest.mark.parametrize(
    "name", [entry(name, slow=name not in {"gru", "bert"}) for name in ARCHITECTURES]
)
def test_the_untouched_model_ships(name: str) -> None:
    cell = attempt(name, Pipeline())
    assert (cell.outcome, cell.reason) == (ACTS, "")


RECURRENT = {"lstm", "lstm-fcn", "event-gru", "lstm-cells"}


def takes_long(name: str, kind: str) -> bool:
    """Whether the stage takes long on the architecture, or says little of it that is new."""
    if kind == "adapt":
        return True
    return name not in RECURRENT if kind == "prune.recurrent" else name in HUGGING_FACE - FEW


OBJECTING = [
    entry(name, kind, slow=takes_long(name, kind))
    for kind in ("adapt", "prune.depth", "prune.heads", "prune.recurrent", "repair.batchnorm")
    for name in ARCHITECTURES
]


@pytest.mark.parametrize(("name", "kind"), OBJECTING)
def test_a_stage_objects_to_the_models_it_refuses_and_to_no_other(name: str, kind: str) -> None:
    model, task = ARCHITECTURES.get(name)()
    before, stage = state_hash(model), STAGES.get(kind)
    objection = stage.objection(model, task)
    assert state_hash(model) == before
    finest = {"prune.recurrent": {"round_to": 1}, "adapt": {"epochs": 0}}.get(kind, {})
    try:
        stage(**finest).apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=0))
    except StageRefused:
        assert objection
    else:
        assert not objection


# -- what a cell says ------------------------------------------------------------------------------


class Liar(nn.Module):
    """Computes something else while it is exported."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return 1.01 * out if torch.compiler.is_exporting() else out


class Moody(nn.Module):
    """Decides by the values of its input, which no exported graph can."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out if float(x.sum()) > 0 else -out


@dataclass(frozen=True)
class Vandal(Stage):
    """Does what a stage must not do."""

    name: ClassVar[str] = "test.vandal"
    effects: ClassVar[Effects] = Effects.of()
    how: str = parameter(
        "raise", Choice(("raise", "refuse", "nothing", "lie", "trap", "scale")), "what it does"
    )

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        if self.how == "raise":
            raise ValueError("a bug")
        if self.how == "refuse":
            raise StageRefused("too thin", layer="fc")
        if self.how == "scale":
            with torch.no_grad():
                next(model.parameters()).mul_(2.0)
        wrapped = {"lie": Liar, "trap": Moody}.get(self.how)
        return wrapped(model).eval() if wrapped else model, StageTrace(self.name)


@pytest.fixture
def _vandal() -> Iterator[None]:
    STAGES.register("test.vandal", Vandal)
    yield
    STAGES.forget("test.vandal")


@pytest.mark.usefixtures("_vandal")
@pytest.mark.parametrize(
    ("how", "outcome", "reason"),
    [
        ("scale", ACTS, ""),
        ("refuse", REFUSES, "test.vandal: layer 'fc': too thin"),
        ("nothing", REFUSES, "test.vandal: test.vandal left the model unchanged"),
        ("raise", FAILS, "test.vandal: ValueError: a bug"),
        ("lie", FAILS, "export: ParityError"),
        ("trap", FAILS, "export: ExportError"),
    ],
)
def test_a_cell_tells_success_refusal_and_failure_apart(
    how: str, outcome: str, reason: str
) -> None:
    cell = attempt("mlp", Pipeline((StageSpec("test.vandal", {"how": how}),)))
    assert cell.outcome == outcome, cell.reason
    assert cell.reason.startswith(reason)
    assert bool(cell.reason) == bool(reason)
    assert (cell.relative_error is not None) == (outcome == ACTS)
    assert Cell.from_dict(json.loads(json.dumps(cell.as_dict()))) == cell


# -- what is tried ---------------------------------------------------------------------------------


def test_every_stage_is_reached_by_a_legal_pipeline() -> None:
    cards = {kind: STAGES.get(kind).card() for kind in STAGES}
    for kind in STAGES:
        pipeline = shortest_pipeline(kind)
        assert pipeline.stages[-1].kind == kind
        assert Space(cards).objection(pipeline) == ""
    assert [s.kind for s in shortest_pipeline("repair.reconstruct")] == [
        "prune.structured",
        "repair.reconstruct",
    ]


def test_cheap_cards_allow_what_the_stages_allow() -> None:
    for kind, card in cheap_cards().items():
        full = STAGES.get(kind).card()
        STAGES.get(kind).from_spec(card.normalize({}))
        for p in card.parameters:
            declared = full.parameter(p.name)
            assert declared is not None
            assert declared.limits.contains(p.default), f"{kind}.{p.name}"


def test_chains_are_legal_long_enough_and_seeded() -> None:
    names = ["mlp", "tcn"]
    chains = list(draw_chains(names, 40, seed=3))
    assert chains == list(draw_chains(names, 40, seed=3))
    assert chains != list(draw_chains(names, 40, seed=4))
    assert [name for name, _ in chains] == names * 20
    assert all(
        s.kind != "tune"
        for _, p in draw_chains(["mlp"], 20, seed=3, without={("mlp", "tune")})
        for s in p
    )
    space = Space({kind: STAGES.get(kind).card() for kind in STAGES}, max_length=5)
    for _, pipeline in chains:
        assert 2 <= len(pipeline) <= 5
        assert space.objection(pipeline) == ""


# -- a sample of the tables ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("conv-gru", "prune.structured"),
        ("tcn", "lowrank.svd"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (
                ("separable", "prune.structured"),
                ("functional-calls", "prune.structured"),
                ("torch-transformer", "lowrank.svd"),
                ("inception-time", "quantize.static"),
                ("multi-output", "quantize.static"),
            )
        ),
    ],
)
def test_it_acts(name: str, kind: str) -> None:
    cell = attempt(name, shortest_pipeline(kind))
    assert cell.outcome == ACTS, cell.reason


def test_no_chain_fails() -> None:
    names = ["mlp", "cnn-1d", "multi-output"]
    without = {
        (name, kind)
        for name in names
        for kind in ("adapt", "prune.heads", "prune.depth", "prune.recurrent", "repair.batchnorm")
    }
    cells = [attempt(name, p) for name, p in draw_chains(names, 9, seed=1, without=without)]
    assert [c for c in cells if c.outcome not in (ACTS, REFUSES)] == []
    assert sum(c.outcome == ACTS for c in cells) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry(name, slow=True) for name in ARCHITECTURES])
@pytest.mark.timeout(900)
def test_no_method_fails(name: str) -> None:
    cells = [attempt(name, shortest_pipeline(kind)) for kind in STAGES]
    assert [c for c in cells if c.outcome not in (ACTS, REFUSES, UNAVAILABLE)] == []


@pytest.mark.slow
def test_the_committed_table_is_that_of_these_stages_and_architectures() -> None:
    results = Path(__file__).parents[1] / "benchmarks" / "results" / "coverage.json"
    cells = [Cell.from_dict(data) for data in json.loads(results.read_text())]
    found = {
        (c.architecture, c.pipeline.stages[-1].kind if c.pipeline.stages else "") for c in cells
    }
    assert found == {(name, kind) for name in ARCHITECTURES for kind in ("", *STAGES)}
    assert not [c for c in cells if c.outcome == FAILS]
