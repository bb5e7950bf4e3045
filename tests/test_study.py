"""The loop: same proposals for any number of workers, resume as if nothing had happened, budgets,
refusals.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import petra
from petra.api import create_or_continue
from petra.config import parse_config
from petra.core.errors import ConfigError, DataError, PetraError, StoreError
from petra.core.trial import GIVEN, Trial
from petra.intake import check_device
from petra.search.uniform import UniformSearcher
from petra.session import BaselineError
from petra.store.store import Store
from petra.study import Study
from petra.tasks.base import Task
from petra.testing.recorded import RecordedExecutor

GENERATION = {"name": "evolution", "population": 4, "offspring": 4, "stagnation": 0}


def problem() -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), petra.classification(
        (x, y), (x, y), (x, y)
    )


def study(workdir: Path, **settings: Any) -> Study:
    data = {"search": GENERATION, "budget": {"trials": 20}, "workdir": str(workdir), **settings}
    return create_or_continue(parse_config(data), *problem())


def proposals(trials: list[Trial]) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(t.number, t.pipeline.canonical(), t.origin.moves) for t in trials]


@pytest.mark.parametrize("workers", [2, 8])
def test_proposals_do_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int) -> None:
    alone = study(tmp_path / "1").run(executor=lambda _: RecordedExecutor(delay_s=0.005))
    many = study(tmp_path / "n").run(
        executor=lambda _: RecordedExecutor(workers=workers, delay_s=0.02)
    )
    assert len(alone.trials) == 21
    assert proposals(alone.trials) == proposals(many.trials)


def test_another_seed_proposes_otherwise(tmp_path: Path) -> None:
    one, two = (study(tmp_path / str(s), seed=s).run(executor=RecordedExecutor) for s in (1, 2))
    assert proposals(one.trials) != proposals(two.trials)


def test_a_larger_budget_continues_and_runs_nothing_again(tmp_path: Path) -> None:
    whole = study(tmp_path / "whole").run(executor=RecordedExecutor)
    study(tmp_path / "parts", budget={"trials": 7}).run(executor=RecordedExecutor)
    executor = RecordedExecutor()
    rest = study(tmp_path / "parts").run(executor=lambda _: executor)
    assert proposals(rest.trials) == proposals(whole.trials)
    assert sorted(executor.evaluated) == list(range(8, 21))


def test_generations_are_so_many_times_the_trials_that_run_at_once(tmp_path: Path) -> None:
    done = study(tmp_path, budget={"generations": 3}).run(executor=RecordedExecutor)
    assert len(done.trials) == 1 + 3 * 4
    with Store.open(tmp_path, write=False) as store:
        assert store.note("stop_reason") == "the budget of 3 generations is spent"


class Interrupted(RecordedExecutor):
    """Ctrl-C after so many trials."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def results(self) -> Iterator[Trial]:
        for trial in super().results():
            yield trial
            self.after -= 1
            if not self.after:
                raise KeyboardInterrupt


def test_a_proposal_is_stored_before_it_runs_and_runs_first_when_resumed(tmp_path: Path) -> None:
    whole = study(tmp_path / "whole").run(executor=RecordedExecutor)
    place = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        study(place).run(executor=lambda _: Interrupted(6))
    with Store.open(place, write=False) as store:
        made, done = store.proposals(), store.trials()
    waiting = [p.number for p in made if p.number not in {t.number for t in done}]
    assert 0 < len(waiting) <= 4
    executor = RecordedExecutor()
    rest = study(place).run(executor=lambda _: executor)
    assert set(executor.evaluated[: len(waiting)]) <= {*waiting, *range(len(made), len(made) + 4)}
    assert proposals(rest.trials) == proposals(whole.trials)
    with Store.open(place, write=False) as store, Store.open(tmp_path / "whole", write=False) as w:
        assert store.proposals() == w.proposals()


def test_a_searcher_that_would_propose_otherwise_now_goes_on_from_what_it_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with another version of petra, or a model whose last bits are others on this machine."""
    search = {"name": "uniform", "generation": 4}
    few = study(tmp_path, search=search, budget={"trials": 9}).run(executor=RecordedExecutor)
    before = proposals(few.trials)
    monkeypatch.setattr(UniformSearcher, "stream", "another")
    after = study(tmp_path, search=search).run(executor=RecordedExecutor)
    assert proposals(after.trials[:10]) == before
    other = study(tmp_path / "new", search=search).run(executor=RecordedExecutor)
    assert proposals(after.trials[10:]) == proposals(other.trials[10:])


def test_what_began_in_time_ends_and_the_rest_waits(tmp_path: Path) -> None:
    slow = RecordedExecutor(delay_s=0.2)
    study(tmp_path, budget={"time": 1.0}).run(executor=lambda _: slow)
    with Store.open(tmp_path, write=False) as store:
        made, done = store.proposals(), store.trials()
        assert store.note("stop_reason") == "the time budget of 1 s is spent"
    assert len(done) < len(made) <= len(done) + 4
    rest = study(tmp_path, budget={"trials": len(made) - 1}).run(executor=RecordedExecutor)
    assert [t.number for t in rest.trials] == [p.number for p in made]


def test_a_goal_stops_the_search(tmp_path: Path) -> None:
    budget = {"trials": 200, "goal": "size <= 0.5 * baseline"}
    trials = study(tmp_path, budget=budget).run(executor=RecordedExecutor).trials
    assert len(trials) < 200
    sizes = [t.metrics["size_bytes"].mean for t in trials if t.measured]
    assert min(sizes) <= 0.5 * sizes[0]
    again = RecordedExecutor()
    assert len(study(tmp_path, budget=budget).run(executor=lambda _: again).trials) == len(trials)
    assert again.evaluated == []


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
    assert set(done.left_out) == {"prune.depth", "prune.heads", "quantize.half", "repair.batchnorm"}
    assert all(done.left_out.values())
    assert not set(done.left_out) & {s.kind for t in done.trials for s in t.pipeline}


@pytest.mark.parametrize(
    "space", [{"stages": {"tune": {}, "prune.depth": {}}}, {"initial": [["tune", "prune.depth"]]}]
)
def test_a_stage_that_somebody_asked_for_stays(tmp_path: Path, space: dict[str, Any]) -> None:
    asked = study(tmp_path, space=space)
    assert "prune.depth" not in asked.left_out
    assert "prune.depth" in asked.problem.space.cards


def test_only_the_front_sees_the_test_split_and_only_once(tmp_path: Path) -> None:
    done = study(tmp_path, budget={"trials": 12}).run(executor=RecordedExecutor)
    tested = {t.number for t in done.trials if t.test}
    assert tested == {0} | {t.number for t in done.front.members}
    again = RecordedExecutor()
    study(tmp_path, budget={"trials": 12}).run(executor=lambda _: again)
    assert again.evaluated == []


KILLED_RUN = """
import sys, pathlib
sys.path.insert(0, {tests!r})
from test_study import study
from petra.testing.recorded import RecordedExecutor
recorded = lambda _: RecordedExecutor(workers=2, delay_s=0.05)
study(pathlib.Path({workdir!r}), budget={{"trials": 200}}).run(executor=recorded)
"""


def kill_repeatedly(workdir: Path, times: int) -> int:
    """Start the study in a process of its own, kill -9 it at a random moment, check the store;
    again.
    """
    seen: dict[int, str] = {}
    landed = 0
    draw = random.Random(7)
    code = KILLED_RUN.format(tests=str(Path(__file__).parent), workdir=str(workdir))
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not Store.exists(workdir) and time.monotonic() < deadline:
            time.sleep(0.05)
        target = len(seen) + draw.randint(0, 9)
        while process.poll() is None and time.monotonic() < deadline and stored(workdir) < target:
            time.sleep(draw.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        landed += process.wait() == -signal.SIGKILL
        assert process.stderr is not None
        process.stderr.close()
        with Store.open(workdir, write=False) as store:
            now = {t.number: t.pipeline.canonical() for t in store.trials()}
        assert seen.items() <= now.items(), "a finished trial was lost or changed"
        seen = now
    return landed


def stored(workdir: Path) -> int:
    try:
        with Store.open(workdir, write=False) as store:
            return len(store.trials())
    except StoreError:
        return 0  # being created at this very moment


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_loses_nothing_and_resume_proposes_the_same(tmp_path: Path, times: int) -> None:
    undisturbed = study(tmp_path / "calm", budget={"trials": 200}).run(executor=RecordedExecutor)
    landed = kill_repeatedly(tmp_path / "killed", times)
    assert landed >= times - 1
    survivor = study(tmp_path / "killed", budget={"trials": 200}).run(executor=RecordedExecutor)
    assert proposals(survivor.trials) == proposals(undisturbed.trials)
    assert len({t.pipeline.key for t in survivor.trials}) == len(survivor.trials) == 201


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
