"""What a study is made of and started with: pipelines to begin with, stages left out, refusals."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import petra
from petra.api import create_or_continue
from petra.config import parse_config
from petra.core.errors import ConfigError, DataError, PetraError, StoreError
from petra.core.notes import StepBegan, StepProgress, WorkerNote
from petra.core.trial import GIVEN, Proposal, Trial
from petra.execute.base import OnNote
from petra.intake import check_device
from petra.listener import Phase, Silent
from petra.session import BaselineError
from petra.store.store import Store
from petra.study import Study
from petra.tasks.base import Task
from petra.testing.recorded import RecordedExecutor

GENERATION = {"name": "evolution", "population": 4, "offspring": 4}


def problem() -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), petra.classification(
        (x, y), (x, y), (x, y)
    )


def study(workdir: Path, **settings: Any) -> Study:
    data = {"search": GENERATION, "budget": {"trials": 20}, "workdir": str(workdir), **settings}
    return create_or_continue(parse_config(data), *problem())


@pytest.mark.parametrize("search", [GENERATION, {"name": "uniform", "generation": 4}])
def test_pipelines_given_by_the_user_come_first(tmp_path: Path, search: dict[str, Any]) -> None:
    given = [
        ["tune", {"stage": "quantize.static", "params": {"observer": "minmax"}}],
        ["tune"],
        ["tune"],
    ]
    done = study(tmp_path, search=search, space={"initial": given}, budget={"trials": 9}).run(
        executor=RecordedExecutor
    )
    kinds = [[s.kind for s in t.pipeline] for t in done.trials]
    assert kinds[1:3] == [["tune", "quantize.static"], ["tune"]]
    assert [t.origin for t in done.trials[1:3]] == [GIVEN, GIVEN]
    assert done.trials[1].pipeline.stages[1].params["observer"] == "minmax"
    assert len({t.pipeline.key for t in done.trials}) == 10


def test_a_search_over_all_stages_leaves_out_those_that_object(tmp_path: Path) -> None:
    done = study(tmp_path / "all").run(executor=RecordedExecutor)
    small = {"quantize.dynamic", "quantize.weights"}  # what the codes save, decoding them costs
    blocks = {"prune.depth", "prune.heads", "prune.recurrent", "repair.batchnorm"}
    assert set(done.left_out) == {*blocks, *small, "quantize.half"}
    assert all(done.left_out.values())
    assert not set(done.left_out) & {s.kind for t in done.trials for s in t.pipeline}


def test_a_loaded_study_knows_what_it_was_run_without(tmp_path: Path) -> None:
    live = study(tmp_path, budget={"trials": 2}).run(executor=RecordedExecutor)
    assert petra.load_study(tmp_path).left_out == live.left_out
    with Store.open(tmp_path, write=True) as store:
        store.set_note("left_out", ["odd"])
    with pytest.raises(StoreError, match="is damaged: note left_out"):
        _ = petra.load_study(tmp_path).left_out
    never = petra.load_study(study(tmp_path / "new").directory)
    with pytest.raises(ConfigError, match="live Python objects"):
        _ = never.left_out


class Slow(RecordedExecutor):
    """Its untouched model takes most of the time: three launches, each as long as the first."""

    def baseline(self, proposal: Proposal, *, on_note: OnNote) -> tuple[Trial, Mapping[str, Any]]:
        on_note(proposal, StepBegan(1, "measure"))
        time.sleep(0.3)
        on_note(proposal, StepProgress(1, 3, "launches"))
        trial, facts = super().baseline(proposal, on_note=on_note)
        return replace(trial, seconds=0.9), facts


class Heard(Silent):
    def __init__(self) -> None:
        self.said, self.steps = list[str](), list[tuple[int, WorkerNote]]()

    def message(self, text: str) -> None:
        self.said.append(text)

    def stage(self, proposal: Proposal, note: WorkerNote) -> None:
        self.steps.append((proposal.number, note))


def test_what_the_untouched_model_takes_is_said_before_it_is_measured(tmp_path: Path) -> None:
    heard = Heard()
    study(tmp_path, budget={"time": 1.0}).run(heard, executor=Slow, progress=False)
    told = next(i for i, text in enumerate(heard.said) if "takes about" in text)
    assert heard.said[told - 1] == "measuring the untouched model"
    assert "no trial" in " ".join(heard.said[told:])


def test_phases_and_final_launches_are_told(tmp_path: Path) -> None:
    heard = Heard()
    done = study(tmp_path, budget={"trials": 1}).run(heard, executor=RecordedExecutor)
    phases = [text for text in heard.said if isinstance(text, Phase)]
    assert phases[:3] == ["examining model and data", "measuring the untouched model", "searching"]
    confirmed = sum(bool(t.test) for t in done.trials)
    models = "1 model" if confirmed == 1 else f"{confirmed} models"
    assert f"confirming {models} on the test split" in phases
    launches = [StepProgress(n, 3, "launches") for n in (1, 2, 3)]
    steps = [note for number, note in heard.steps if number == 0]
    assert steps == [StepBegan(1, "confirm"), *launches]


def test_progress_is_shown_whoever_else_listens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = Heard()
    study(tmp_path, budget={"trials": 2}).run(heard, executor=RecordedExecutor)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "trial 2: " in shown.err
    assert "front: " in shown.err
    assert heard.said
    study(tmp_path, budget={"trials": 3}).run(executor=RecordedExecutor, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "space", [{"stages": {"tune": {}, "prune.depth": {}}}, {"initial": [["tune", "prune.depth"]]}]
)
def test_a_stage_that_somebody_asked_for_stays(tmp_path: Path, space: dict[str, Any]) -> None:
    asked = study(tmp_path, space=space)
    assert "prune.depth" not in asked.left_out
    assert "prune.depth" in asked.problem.space.cards


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    running = study(tmp_path)
    with Store.open(tmp_path, write=True), pytest.raises(StoreError, match=str(os.getpid())):
        running.run(executor=RecordedExecutor)


def test_another_model_or_other_settings_are_refused(tmp_path: Path) -> None:
    study(tmp_path, budget={"trials": 4}).run(executor=RecordedExecutor)
    with pytest.raises(StoreError, match="other settings \\(seed\\)"):
        study(tmp_path, seed=5)
    model, task = problem()
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    config = parse_config({"search": GENERATION, "budget": {"trials": 4}, "workdir": str(tmp_path)})
    with pytest.raises(StoreError, match="another model"):
        create_or_continue(config, model, task).run(executor=RecordedExecutor)


def test_a_study_of_live_objects_says_how_to_continue(tmp_path: Path) -> None:
    study(tmp_path, budget={"trials": 4}).run(executor=RecordedExecutor)
    with pytest.raises(ConfigError, match=r"petra\.compress\(model, task, workdir"):
        petra.load_study(tmp_path).run()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"search": {"name": "evolutoin"}}, "did you mean 'evolution'"),
        ({"search": {"name": "evolution", "populaton": 3}}, "did you mean 'population'"),
        ({"space": {"stages": {"prune.structurd": {}}}}, "did you mean 'prune.structured'"),
        ({"space": {"stages": {"tune": {"lr": 500.0}}}}, r"space\.stages\.tune\.lr"),
        ({"space": {"stages": {"tune": {"epoch": 5}}}}, "did you mean 'epochs'"),
        ({"target": {"runtime": "onnx"}}, "target\\.runtime: unknown.*\n.*'onnxruntime'"),
        (
            {"target": {"runtime": "onnx"}, "space": {}},
            "target\\.runtime: unknown.*\n.*'onnxruntime'",
        ),
        ({"target": "torch.compyle"}, "did you mean 'torch.compile'"),
        ({"target": {"device": "cuda"}}, "target\\.device: onnxruntime does not run on .*\n.*cpu"),
        ({"target": {"options": {"spining": 1}}}, "target\\.options: .*\n.*'spinning'"),
        ({"target": {"options": {"spinning": 3}}}, r"target\.options\.spinning: got 3"),
        ({"device": "gpu"}, r"device: cannot train on 'gpu'\n.*allowed here: cpu"),
        (
            {"space": {"initial": [["tunee"]]}},
            r"space\.initial\[0\]\[0\]\.stage.*\n.*did you mean 'tune'",
        ),
        (
            {"space": {"initial": [["quantize.static", "tune"]]}},
            r"space\.initial\[0\]: stage 2: tune needs",
        ),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        study(tmp_path / "new", **settings).run(executor=RecordedExecutor)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("missing", ["no CUDA GPU", ""])
def test_stages_train_on_devices_of_this_machine_only(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr("petra.intake.device.lacks_cuda", lambda: missing)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cpu")
    for device in ("cuda", "cuda:1"):
        if missing:
            with pytest.raises(
                ConfigError, match=f"cannot train on '{device}': no CUDA GPU\n.*allowed here: cpu$"
            ):
                check_device(device)
        else:
            check_device(device)
    for device in ("cuda:2", "CUDA", "cuda:", "cuda:-1", ""):
        with pytest.raises(ConfigError, match="allowed here: cpu"):
            check_device(device)


X, Y = torch.randn(12, 6), torch.randint(0, 3, (12,))


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (lambda: petra.classification((X, Y + 9), (X, Y), (X, Y)), "train split.*labels run from"),
        (lambda: petra.classification((X, Y), (X[:, :4], Y), (X, Y)), "val split"),
        (lambda: petra.classification((X, Y), (X, Y), (X[:0], Y[:0])), "test split is empty"),
        (
            lambda: petra.classification((X[:, :2], Y), (X[:, :2], Y), (X[:, :2], Y)),
            "does not take these inputs",
        ),
    ],
)
def test_bad_data_is_refused_in_words(tmp_path: Path, task: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        petra.compress(problem()[0], task(), budget={"trials": 1}, workdir=tmp_path)


class Unexportable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(x)
        return logits + torch.linalg.eigvals(x[:, :, None] * x[:, None, :]).real[:, :3]


def test_a_model_that_cannot_be_exported_names_the_operator(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match=r"aten\.linalg_eig"):
        petra.compress(Unexportable(), problem()[1], budget={"trials": 1}, workdir=tmp_path)


def test_unwritable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PetraError, match="cannot be made"):
        study(tmp_path / "file" / "study")
