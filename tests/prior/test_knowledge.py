"""A study begins with what past ones have shown, keeps what it began with, and can do without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import petra
from petra.api import create_or_continue
from petra.config import parse_config
from petra.core.errors import ConfigError, StoreError
from petra.core.trial import PAST
from petra.prior import Knowledge
from petra.prior.knowledge import PAST_NOTE, PRIOR_NOTE
from petra.prior.past import MOST_TRIED, past_studies
from petra.recipes import stored_recipes
from petra.store.store import Store
from petra.store.writing import Writing
from petra.study import Study
from petra.tasks.base import Task
from petra.testing.recorded import RecordedExecutor


def problem(width: int = 8) -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)), petra.classification(
        (x, y), (x, y), (x, y)
    )


def study(workdir: Path, *, width: int = 8, **settings: Any) -> Study:
    data = {"budget": {"trials": 20}, "workdir": str(workdir), **settings}
    return create_or_continue(parse_config(data), *problem(width))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished studies."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        study(folder / f"s{seed}", seed=seed, search="uniform").run(executor=RecordedExecutor)
    return folder


def test_pipelines_of_a_past_front_are_tried_after_what_costs_nothing(
    tmp_path: Path, runs: Path
) -> None:
    done = study(tmp_path, width=16, prior={"studies": [str(runs)]}).run(executor=RecordedExecutor)
    past = [t for t in done.trials if t.origin == PAST]
    assert 0 < len(past) <= MOST_TRIED
    fronts = {t.pipeline for d in ("s1", "s2") for t in petra.load_study(runs / d).front.members}
    assert {t.pipeline for t in past} <= fronts
    assert done.knowledge.prior is not None
    assert "size_bytes" in done.knowledge.prior.models
    assert done.knowledge.about.startswith("40 trials of past studies are known")


def test_what_a_study_began_with_stays(tmp_path: Path, runs: Path) -> None:
    """Even when the past studies are gone."""
    import shutil

    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    settings = {"prior": {"studies": str(copy)}, "budget": {"trials": 8}}
    created = study(tmp_path / "new", **settings)
    began = created.run(executor=RecordedExecutor)
    shutil.rmtree(copy)
    again = study(tmp_path / "new", **{**settings, "budget": {"trials": 14}})
    assert again.knowledge.prior == Knowledge.stored(Store.open(again.directory, write=False)).prior
    assert again.knowledge.prior == created.knowledge.prior, "to the last digit"
    assert again.knowledge.past == began.problem.past
    whole = study(tmp_path / "whole", prior={"studies": str(runs)}, budget={"trials": 14})
    mine = again.run(executor=RecordedExecutor).trials
    other = whole.run(executor=RecordedExecutor).trials
    assert [t.pipeline for t in mine] == [t.pipeline for t in other]


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    off = study(tmp_path / "off", prior={"shipped": False})
    assert off.knowledge.prior is None
    assert off.problem.prior is None
    assert off.problem.past == ()
    on = study(tmp_path / "on")
    assert on.problem.prior is not None
    assert set(on.problem.prior.models) <= {"quality", "latency_ratio", "size_bytes", "works"}


def test_a_study_from_before_there_were_priors_goes_on_without(tmp_path: Path) -> None:
    study(tmp_path, budget={"trials": 4}).run(executor=RecordedExecutor)
    with Store.open(tmp_path, write=True) as store:
        for note in (PRIOR_NOTE, PAST_NOTE):
            store.set_note(note, None)
    assert study(tmp_path).problem.prior is None


@pytest.mark.parametrize("damage", [{"size_bytes": 3}, [], {"size_bytes": {"tune": ["a", 1]}}, 5])
def test_a_damaged_prior_is_refused(tmp_path: Path, damage: object) -> None:
    study(tmp_path, budget={"trials": 2}).run(executor=RecordedExecutor)
    with Store.open(tmp_path, write=True) as store:
        store.set_note(PRIOR_NOTE, damage)
    with pytest.raises(StoreError, match="notes prior and past"):
        _ = study(tmp_path).problem


@pytest.mark.parametrize("last", ["recipes", PRIOR_NOTE, PAST_NOTE])
def test_a_creation_that_is_cut_off_leaves_no_study_that_has_forgotten_what_it_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Before any of the notes that a study begins with is written."""
    original = Writing.note

    def cut_off(self: Writing, name: str, value: object) -> None:
        if name == last:
            raise KeyboardInterrupt
        original(self, name, value)

    with monkeypatch.context() as patched:
        patched.setattr(Writing, "note", cut_off)
        with pytest.raises(KeyboardInterrupt):
            study(tmp_path / "study")
    assert not Store.exists(tmp_path / "study")
    again = study(tmp_path / "study")
    assert again.problem.recipes
    with Store.open(again.directory, write=False) as store:
        assert stored_recipes(store) == again.problem.recipes
        assert Knowledge.stored(store).prior == again.knowledge.prior


def test_places_without_studies_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("empty", "nowhere"):
        with pytest.raises(ConfigError, match=r"prior.studies\[0\]"):
            study(tmp_path / "new", prior={"studies": [str(tmp_path / place)]})
    assert not (tmp_path / "new").exists()


def test_a_study_does_not_learn_from_itself(runs: Path) -> None:
    found = past_studies([str(runs), str(runs / "s2")], besides=runs / "s1")
    assert [past.directory.name for past in found] == ["s2"]
