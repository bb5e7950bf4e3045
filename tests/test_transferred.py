"""Configurations of one study on another task: what is tried, where it stands, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner

import petra
from petra.api import create_or_continue
from petra.cli.main import app
from petra.cli.transfer import transfer_data, transfer_view
from petra.config import parse_config
from petra.core.errors import ConfigError, StoreError
from petra.core.text import json_text
from petra.core.trial import GIVEN
from petra.report.tables import to_text
from petra.study import Study
from petra.tasks.base import Task
from petra.testing.recorded import RecordedExecutor
from petra.transferred import Transfer

PARTS = """
import torch
from torch import nn
import petra

def model(classes=3, blocks=3):
    torch.manual_seed(0)
    inner = [layer for _ in range(blocks) for layer in (nn.Linear(8, 8), nn.ReLU())]
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), *inner, nn.Linear(8, classes))

def task(classes=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(120, 6, generator=generator)
    y = torch.randint(0, classes, (120,), generator=generator)
    return petra.classification(*((x[i:i + 40], y[i:i + 40]) for i in (0, 40, 80)))
"""
STAGES: dict[str, Any] = {"tune": {}, "prune.structured": {}, "quantize.static": {}}


def problem(classes: int = 3) -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(0, classes, (40,))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, classes))
    return model, petra.classification((x, y), (x, y), (x, y))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A finished study whose results are made up."""
    place = tmp_path_factory.mktemp("found") / "first"
    data = {
        "objectives": ["quality", "size"],
        "space": {"stages": STAGES, "max_length": 2},
        "budget": {"trials": 16},
        "workdir": str(place),
    }
    return create_or_continue(parse_config(data), *problem()).run(executor=RecordedExecutor)


def members(study: Study) -> list[Any]:
    return [t for t in study.front.members if t.number]


def transferred(found: Study, place: Path, **options: Any) -> Transfer:
    executor = RecordedExecutor
    return petra.transfer(found, problem(5), workdir=place, executor=executor, **options)


def test_all_of_the_front_is_tried_there_and_nothing_else(found: Study, tmp_path: Path) -> None:
    result = transferred(found, tmp_path / "there")
    assert [a.found.number for a in result.applied] == sorted(t.number for t in members(found))
    tried = [a.applied for a in result.applied]
    assert all(t is not None and t.origin == GIVEN for t in tried)
    assert {t.pipeline for t in tried if t} == {t.pipeline for t in members(found)}
    assert len(result.here.trials) == 1 + len(members(found)), "the untouched model, and these"
    assert result.refused == {}
    assert result.given == ()


def test_one_is_tried_by_its_pick(found: Study, tmp_path: Path) -> None:
    result = transferred(found, tmp_path / "there", pick="smallest")
    least = found.front.pick("smallest").trial
    assert [a.found.number for a in result.applied] == [least.number]
    assert [t.pipeline for t in result.here.trials[1:]] == [least.pipeline]
    if not found.front.pick("best").trial.number:
        with pytest.raises(ConfigError, match="what is picked is the untouched model"):
            transferred(found, tmp_path / "none", pick="best")


def test_the_same_call_continues_and_changes_nothing(found: Study, tmp_path: Path) -> None:
    one = transferred(found, tmp_path / "there")
    again = transferred(found, tmp_path / "there")
    assert [a.applied for a in again.applied] == [a.applied for a in one.applied]


def test_a_search_begins_with_them_and_learns_from_there(found: Study, tmp_path: Path) -> None:
    result = transferred(found, tmp_path / "there", start=True)
    first = [t.pipeline for t in result.here.trials[1 : 1 + len(members(found))]]
    assert set(first) == {t.pipeline for t in members(found)}
    assert len(result.here.trials) == 17, "then it goes on to the budget"
    assert result.here.config.prior.studies == (str(found.directory.resolve()),)


def write(place: Path, **settings: Any) -> Path:
    module = f"parts_{place.name}"  # a name is that of one file in a process
    (place / f"{module}.py").write_text(PARTS)
    study = {
        "model": {"call": f"{module}:model", "args": {"classes": 4}},
        "task": {"call": f"{module}:task", "args": {"classes": 4}},
        "objectives": ["quality", "size"],
        "budget": {"trials": 3},
        "workdir": str(place / "other"),
        **settings,
    }
    path = place / "other.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def test_a_study_file_brings_its_own_to_compare_with(found: Study, tmp_path: Path) -> None:
    given = [[{"stage": "tune", "params": {"epochs": 2}}]]
    path = write(tmp_path, space={"stages": STAGES, "initial": given})
    result = petra.transfer(found, path, executor=RecordedExecutor)
    assert result.here.directory == Path(f"{tmp_path / 'other'}-from-first")
    assert [t.pipeline.stages[0].params["epochs"] for t in result.given] == [2]
    shown = to_text(transfer_view(result), width=160)
    assert shown.count("\n") >= 2 + len(result.applied)
    for one in result.applied:
        assert one.applied is not None
        assert f"{one.found.number} " in shown
    data = json.loads(json_text(transfer_data(result)))
    assert [d["there"]["number"] for d in data["transferred"]] == [
        a.found.number for a in result.applied
    ]
    assert len(data["given"]) == 1


def test_what_is_not_legal_there_is_said(found: Study, tmp_path: Path) -> None:
    """A space without a stage that some of them have refuses those, and says which."""
    kinds = {s.kind for t in members(found) for s in t.pipeline}
    assert len(kinds) > 1, kinds
    lone = [t for t in members(found) if {s.kind for s in t.pipeline} == {"tune"}]
    path = write(tmp_path, space={"stages": {"tune": {}}})
    if lone:
        result = petra.transfer(found, path, executor=RecordedExecutor)
        assert set(result.refused) == {t.number for t in members(found)} - {t.number for t in lone}
    else:
        with pytest.raises(ConfigError, match="is not legal for the other model"):
            petra.transfer(found, path, executor=RecordedExecutor)
        assert not (tmp_path / "other-from-first").exists()
    other = next(t for t in members(found) if {s.kind for s in t.pipeline} != {"tune"})
    with pytest.raises(ConfigError, match=f"trial {other.number} is not legal") as caught:
        petra.transfer(found, path, pick=other.number, executor=RecordedExecutor)
    assert "unknown stage" in caught.value.message


def test_mistakes_are_one_message(found: Study, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no study here"):
        petra.transfer(tmp_path, problem())
    with pytest.raises(ConfigError, match="pick: got"):
        petra.transfer(found, problem(), pick="kne")
    with pytest.raises(ConfigError, match="a tuple of 1"):
        petra.transfer(found, (problem()[0],))  # type: ignore[arg-type]
    (tmp_path / "none.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="neither workload nor model and task"):
        petra.transfer(found, tmp_path / "none.yaml")
    done = CliRunner().invoke(app, ["transfer", str(tmp_path), "--to", "none.yaml"])
    assert done.exit_code == 2
    assert "there is no study here" in done.stderr


@pytest.mark.slow
def test_from_the_command_line_with_real_candidates(found: Study, tmp_path: Path) -> None:
    path = write(tmp_path, space={"stages": STAGES})
    command = ["transfer", str(found.directory), "--to", str(path), "--pick", "smallest", "--json"]
    done = CliRunner().invoke(app, [*command, "--quiet"])
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.stdout)["transferred"]
    assert one["here"]["pipeline"] == one["there"]["pipeline"]
    assert one["here"]["status"] in ("complete", "failed")
