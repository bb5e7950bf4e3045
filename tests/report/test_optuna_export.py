"""Optuna and its dashboard read what is exported, and it says what the study says."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from petra.core.errors import ConfigError
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Fidelity, Proposal, Trial, TrialStatus
from petra.report.optuna_export import export_optuna
from petra.report.record import StudyRecord
from petra.search.choices import written
from petra.store.store import Store
from petra.testing.studies import toy_study

optuna = pytest.importorskip("optuna")
State = optuna.trial.TrialState
CONSTRAINT = "size <= 0.4 * baseline"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with all that may be in one: also a low fidelity, and a proposal under way."""
    place = tmp_path_factory.mktemp("made") / "toy"
    toy_study(place, trials=12, constraints=(CONSTRAINT,))
    with Store.open(place, write=True) as store:
        base = store.trial(0)
        low = Pipeline((StageSpec("prune", {"ratio": 0.123}),))
        proposal = Proposal(13, low, fidelity=Fidelity(data=0.5))
        store.add(proposal.ended(TrialStatus.COMPLETE, metrics=base.metrics, seconds=1.0))
        broken = Proposal(14, Pipeline((StageSpec("prune", {"ratio": 0.125}),)))
        failure = Failure("prune", "StageRefused", "no channels left")
        store.add(broken.ended(TrialStatus.FAILED, failure=failure))
        store.propose(Proposal(15, Pipeline((StageSpec("prune", {"ratio": 0.124}),))))
    return place


def load(out: Path) -> Any:
    if out.suffix == ".log":
        backend = optuna.storages.journal.JournalFileBackend(str(out))
        storage: Any = optuna.storages.JournalStorage(backend)
    else:
        storage = f"sqlite:///{out}"
    return optuna.load_study(study_name=None, storage=storage)


@pytest.mark.parametrize("ending", ["db", "log"])
def test_what_is_exported_is_the_study(directory: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out.{ending}"
    assert export_optuna(directory, out) == 16
    assert list(tmp_path.iterdir()) == [out]
    study, record = load(out), StudyRecord.load(directory)
    assert study.study_name == "toy"
    assert study.metric_names == ["quality", "latency_ratio", "size_bytes"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert study.user_attrs["constraints"] == [str(c) for c in record.constraints]
    trials = study.get_trials()
    assert [t.number for t in trials] == list(range(16))
    assert trials[13].state is State.PRUNED
    assert trials[15].state is State.WAITING
    assert trials[15].params["prune.ratio"] == 0.124
    for trial in (*record.trials[:13], record.trials[14]):
        check(record, trial, trials[trial.number])
    assert {t.state for t in trials} >= {State.COMPLETE, State.FAIL}


def check(record: StudyRecord, trial: Trial, seen: Any) -> None:
    assert seen.params == written(trial.pipeline)
    assert seen.duration.total_seconds() == pytest.approx(trial.seconds, abs=1e-3)
    began = seen.datetime_complete - timedelta(seconds=trial.finished_at)
    assert abs(began.timestamp() - created(record.directory)) < 1e-3
    assert seen.user_attrs["status"] == trial.status.value
    if not trial.measured:
        assert trial.failure is not None
        assert seen.state is State.FAIL
        assert trial.failure.message in seen.user_attrs["failure"]
        return
    assert seen.state is State.COMPLETE
    assert seen.values == [trial.metrics[o.metric].mean for o in record.objectives]
    if trial.number:  # the untouched model is complete whatever it violates
        assert (max(seen.constraints.values()) > 0) == (trial.status is TrialStatus.INFEASIBLE)
    assert seen.user_attrs["memory_mb"] == trial.metrics["memory_mb"].mean
    if trial.test:
        assert seen.user_attrs["test quality"] == trial.test["quality"].mean


def created(directory: Path) -> float:
    with Store.open(directory, write=False) as store:
        return store.created.timestamp()


def test_model_files_are_artifacts(directory: Path, tmp_path: Path) -> None:
    out, files = tmp_path / "out.db", tmp_path / "files"
    export_optuna(directory, out, artifacts=files)
    study, record = load(out), StudyRecord.load(directory)
    shipped = 0
    for trial in record.trials:
        seen = study.get_trials()[trial.number]
        metas = optuna.artifacts.get_all_artifact_meta(seen, storage=study._storage)
        assert [m.filename for m in metas] == (["model.onnx"] if trial.artifact else [])
        for meta in metas:
            original = (directory / trial.artifact).read_bytes()
            assert (files / meta.artifact_id).read_bytes() == original
            shipped += 1
    assert shipped > 5


def test_the_dashboard_opens_it(directory: Path, tmp_path: Path) -> None:
    """By its own interface, as its page in the browser would."""
    dashboard = pytest.importorskip("optuna_dashboard")
    out = tmp_path / "out.db"
    export_optuna(directory, out, artifacts=tmp_path / "files")
    app = dashboard.wsgi(
        f"sqlite:///{out}", optuna.artifacts.FileSystemArtifactStore(str(tmp_path / "files"))
    )

    def get(path: str) -> Any:
        status: list[str] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "x"}
        environ |= {"SERVER_PORT": "80", "wsgi.url_scheme": "http", "QUERY_STRING": "after=0"}
        body = b"".join(app(environ, lambda s, *_: status.append(s)))
        assert status[0].startswith("200"), (path, status, body[:300])
        return json.loads(body)

    (summary,) = get("/api/studies")["study_summaries"]
    seen = get(f"/api/studies/{summary['study_id']}")
    assert seen["objective_names"] == ["quality", "latency_ratio", "size_bytes"]
    states = {t["number"]: t["state"] for t in seen["trials"]}
    assert states[0] == "Complete"
    assert states[15] == "Waiting"
    infeasible = [t for t in seen["trials"] if any(c > 0 for c in t["constraints"])]
    assert infeasible
    assert any(t["artifacts"] for t in seen["trials"])


def test_nothing_is_overwritten_and_endings_are_known(directory: Path, tmp_path: Path) -> None:
    taken = tmp_path / "out.db"
    taken.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        export_optuna(directory, taken)
    with pytest.raises(ConfigError, match="neither database nor journal"):
        export_optuna(directory, tmp_path / "out.txt")
    with pytest.raises(ConfigError, match="cannot be written"):
        export_optuna(directory, tmp_path / "nowhere" / "out.db")
    assert taken.read_text() == "mine"
