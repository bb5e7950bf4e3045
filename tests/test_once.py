"""From the study file to what an executor is given, each record is made once and goes unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import petra
from petra import config, problem
from petra.api import study_from_file
from petra.cli.main import app
from petra.config import parse_config
from petra.core.pipeline import Pipeline
from petra.core.target import Target
from petra.execute.base import Assignment, Executor
from petra.execute.build import context_of
from petra.execute.table import EXECUTORS
from petra.testing.recorded import RecordedExecutor
from petra.testing.stage_suite import small_problem

TEXT = """
model: {module}:model
task: {module}:task
target: {{runtime: torch, threads: 3, batch: 2}}
executor: test.recorded
budget: {{trials: 3}}
space: {{stages: [prune.unstructured, prune.structured]}}
workdir: {workdir}
"""
MODULE = "from petra.testing.stage_suite import small_problem\n" + "".join(
    f"def {name}():\n    return small_problem()[{i}]\n" for i, name in enumerate(("model", "task"))
)


@pytest.fixture
def assignments() -> Iterator[list[Assignment]]:
    given: list[Assignment] = []

    def make(assignment: Assignment) -> Executor:
        given.append(assignment)
        return RecordedExecutor(assignment)

    EXECUTORS.register("test.recorded", make)
    yield given
    EXECUTORS.forget("test.recorded")


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    module = f"of_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(MODULE)
    file = tmp_path / "study.yaml"
    file.write_text(TEXT.format(module=module, workdir=tmp_path / "study"))
    return file


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[object]:
    """What `owner.name` returns from now on."""
    made: list[object] = []
    real: Callable[..., object] = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> object:
        made.append(real(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(owner, name, called)
    return made


def test_the_file_is_read_and_the_space_is_built_once(
    study_file: Path, assignments: list[Assignment], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = counted(monkeypatch, config.read, "read_yaml")
    spaces = counted(monkeypatch, problem, "Space")
    arguments = ["run", str(study_file), "--trials", "2", "--seed", "4", "--quiet", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (len(files), len(spaces), len(assignments)) == (1, 1, 1)
    study = petra.load_study(study_file.parent / "study")
    assert len(study.trials) == 3
    assert (study.config.seed, study.config.budget.trials) == (4, 2)


def test_the_target_goes_unchanged_from_the_file_to_the_stages(
    study_file: Path, assignments: list[Assignment]
) -> None:
    study = study_from_file(study_file)
    target = study.config.target
    assert target == Target("torch", threads=3, batch=2)
    study.run()
    payload = assignments[0].payload
    assert payload.target is target
    assert context_of(payload, lambda note: None, Pipeline()).target is target
    assert assignments[0].paths.artifact(1) == study_file.parent / "study" / "artifacts" / "00001"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("torch.cuda", Target("torch", "cuda")),
        ({"runtime": "torch.compile.cuda"}, Target("torch.compile", "cuda")),
        ({"runtime": "torch.cuda", "threads": 2, "batch": 4}, Target("torch", "cuda", 2, 4)),
        ({"runtime": "torch", "device": "cuda:1"}, Target("torch", "cuda:1")),
        ("torch.compile", Target("torch.compile")),
        (asdict(Target("openvino", threads=5)), Target("openvino", threads=5)),
    ],
)
def test_names_of_targets_say_what_they_said(given: Any, meant: Target) -> None:
    read = parse_config({"workload": "digits", "target": given})
    assert read.target == meant
    assert parse_config(read.model_dump(mode="json")) == read, "and what is stored reads back"


def test_compress_takes_what_the_study_file_takes(
    tmp_path: Path, assignments: list[Assignment]
) -> None:
    def compress(**given: Any) -> petra.Study:
        return petra.compress(
            *small_problem(),
            budget={"trials": 1},
            space={"stages": ["prune.unstructured"]},
            workdir=tmp_path / "study",
            **given,
        )

    with pytest.raises(petra.PetraError, match="device: cannot train on 'gpu'"):
        compress(device="gpu")
    with pytest.raises(petra.PetraError, match=r"executor: unknown executor 'lokal'\s.*'local'"):
        compress(executor="lokal")
    assert not (tmp_path / "study").exists()
    done = compress(executor="test.recorded", device="cpu")
    assert [t.number for t in done.trials] == [0, 1]
    assert len(assignments) == 1
    again = compress(executor=RecordedExecutor)  # where it runs does not make it another study
    assert len(again.trials) == 2
