"""What installed packages announce: found without importing it, used when it is named, and refused
in words where it cannot be.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from packages import Install, acme_groups, write_metadata
from torch import nn
from typer.testing import CliRunner

import petra
from petra.api import create_or_continue, load_study
from petra.brought import check_brought, registries
from petra.callbacks.table import CALLBACKS
from petra.cli.announced import brought_here
from petra.cli.main import app
from petra.config import parse_config
from petra.core.announced import PluginError, missing_error, not_installed
from petra.core.errors import ConfigError
from petra.core.metric import METRICS
from petra.execute.table import EXECUTORS
from petra.methods.table import STAGES
from petra.problem import build_space
from petra.report.record import StudyRecord
from petra.runtimes.table import RUNTIMES, deployable, runtimes_by_suffix
from petra.search.table import SEARCHERS
from petra.study import Study
from petra.tasks.base import Task
from petra.testing.recorded import RecordedExecutor

NAMED: dict[str, Any] = {
    "target": "acme.packed",
    "search": {"name": "acme.nearby"},
    "objectives": ["quality", "download_bytes"],
    "constraints": ["download_bytes <= 900 kB"],
    "callbacks": ["acme.diary", {"name": "csv", "args": {"file": "all.csv"}}],
    "space": {"stages": ["acme.round", "tune"], "recipes": False},
}


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Task]:
    pair = torch.randn(24, 6), torch.arange(24) % 3
    return nn.Linear(6, 3), petra.classification(pair, pair, pair)


def study(workdir: Path, problem: tuple[nn.Module, Task], **settings: Any) -> Study:
    data = {"budget": {"trials": 6}, "workdir": str(workdir), **settings}
    return create_or_continue(parse_config(data), *problem)


@pytest.mark.usefixtures("acme")
def test_every_kind_is_found_by_its_name() -> None:
    assert SEARCHERS.get("acme.nearby").stream == "acme.nearby"
    assert METRICS.get("download_bytes").unit == "B"
    assert CALLBACKS.get("acme.diary").name == "acme.diary"
    stage = STAGES.get("acme.round")
    assert stage.name == "acme.round"
    assert STAGES.added() == {"acme.round": stage}, "it goes to the workers"
    assert STAGES.package("acme.round") == "acme-petra 1.2"
    assert STAGES.package("tune") == ""
    assert runtimes_by_suffix()[".onnxz"] == "acme.packed"
    assert "acme.packed" in deployable()
    assert {"acme.round", "tune"} <= set(STAGES)


def test_nothing_is_imported_before_it_is_asked_for(tmp_path: Path) -> None:
    groups = {group: dict.fromkeys(names, "nowhere:X") for group, names in acme_groups().items()}
    write_metadata(tmp_path, "acme-petra", "1.2", groups)
    code = (
        "import sys, petra\n"
        "from petra.core.metric import METRICS\n"
        "from petra.measure.host import describe_host\n"
        "from petra.runtimes.table import RUNTIMES\n"
        "RUNTIMES.all(); METRICS.items(); describe_host()\n"
        "assert 'acme.packed' in RUNTIMES and 'acme.packed' not in RUNTIMES.names()\n"
        "assert 'mlflow' not in sys.modules and 'wandb' not in sys.modules\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{Path(petra.__file__).parents[1]}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("acme")
def test_what_is_installed_takes_part_when_it_is_named_and_not_before(
    problem: tuple[nn.Module, Task],
) -> None:
    def cards(**space: Any) -> set[str]:
        config = parse_config({"space": space})
        return set(build_space(config, problem[1], problem[0]).cards)

    before = cards()
    assert cards(stages=["acme.round"]) == {"acme.round"}
    assert cards(initial=[["acme.round"]]) == {*before, "acme.round"}
    assert cards() == before, "what another study of this process named changes nothing"


@pytest.mark.usefixtures("acme")
def test_a_study_names_one_of_each_kind(tmp_path: Path, problem: tuple[nn.Module, Task]) -> None:
    done = study(tmp_path, problem, **NAMED).run(executor=RecordedExecutor)
    assert {s.kind for t in done.trials for s in t.pipeline} == {"acme.round", "tune"}
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 8
    assert (tmp_path / "diary.jsonl").is_file()
    front = load_study(tmp_path).front
    assert "download" in str(front)
    assert "size of the download" in front.plot().to_json()


def test_a_study_says_which_package_it_lacks(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, problem: Any
) -> None:
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(write_metadata(tmp_path / "a", "acme", "1.2", acme_groups())))
        study(tmp_path / "s", problem, **NAMED).run(executor=RecordedExecutor)
        rest = {k: v for k, v in NAMED.items() if k not in ("objectives", "constraints")}
        study(tmp_path / "t", problem, **rest)
        for registry in registries():
            registry.forget(*(one.name for one in registry.announced()))
    with pytest.raises(PluginError, match=r"the metric download_bytes of the package acme 1\.2"):
        StudyRecord.load(tmp_path / "s")
    assert len(load_study(tmp_path / "t").trials) == 0, "reading needs no stage"
    with pytest.raises(PluginError) as raised:
        check_brought(tmp_path / "t")
    assert "the stage acme.round of the package acme 1.2" in raised.value.message
    assert "the searcher acme.nearby" in raised.value.message
    assert raised.value.hint == "install it first: pip install acme"
    with pytest.raises(PluginError, match="is not installed here"):
        study(tmp_path / "t", problem, **rest)
    with pytest.raises(ConfigError) as unknown:
        study(tmp_path / "u", problem, space={"stages": ["acme.round"]})
    assert "install the package that brings it" in unknown.value.hint
    check_brought(tmp_path / "none")


BROKEN = {
    "acme.absent": ("no_such_module:X", "ModuleNotFoundError: No module named 'no_such_module'"),
    "acme.gone": ("acme_petra.rounding:Gone", "AttributeError: module 'acme_petra.rounding' has"),
    "acme.other": ("acme_petra.download:DOWNLOAD", "is no subclass of Stage"),
    "acme.renamed": ("acme_petra.rounding:Round", "Round has the name 'acme.round'"),
    "acme.bare": ("petra.methods.base:Stage", "Stage lacks apply"),
    "acme.exits": ("leaves:X", "SystemExit: 3"),
}


@pytest.fixture
def broken(install: Install, tmp_path: Path) -> None:
    place = install("bad", {"petra.stages": {n: value for n, (value, _) in BROKEN.items()}}, "0.1")
    (place / "leaves.py").write_text("raise SystemExit(3)")


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_one_message_that_names_its_package(name: str) -> None:
    with pytest.raises(PluginError) as raised:
        STAGES.get(name)
    assert "of the package bad 0.1" in raised.value.message
    assert BROKEN[name][1] in raised.value.message
    assert "pip uninstall bad" in raised.value.hint


@pytest.mark.usefixtures("broken", "acme")
def test_a_broken_plugin_stands_in_nobody_s_way(
    tmp_path: Path, problem: tuple[nn.Module, Task]
) -> None:
    done = study(tmp_path, problem, **NAMED).run(executor=RecordedExecutor)
    assert len(done.trials) == 7
    listed = CliRunner().invoke(app, ["methods"])
    assert listed.exit_code == 0
    assert "plugin   stage acme.round of acme-petra 1.2\n" in listed.stdout
    assert "Round every weight" in listed.stdout
    left_out = [line for line in listed.stdout.splitlines() if ": left out: " in line]
    assert len(left_out) == len(BROKEN)
    assert all("of bad 0.1" in line for line in left_out)
    wrong = {row["name"]: row["wrong"] for row in brought_here()}
    assert {name for name, why in wrong.items() if why} == set(BROKEN)
    assert CliRunner().invoke(app, ["methods", "acme.absent"]).exit_code == 2


def test_names_of_petra_s_own_are_refused(install: Install) -> None:
    install("thief", {"petra.stages": {"tune": "acme_petra.rounding:Round"}})
    assert STAGES.get("tune").__module__.startswith("petra.")
    assert [one.package for one in STAGES.refused()] == ["thief"]
    assert [row["wrong"] for row in brought_here()] == ["another stage has this name"]


def test_a_name_that_two_packages_announce_is_neither_s(install: Install) -> None:
    for package in ("one", "two"):
        install(package, {"petra.stages": {"acme.round": "acme_petra.rounding:Round"}})
    with pytest.raises(PluginError, match=r"announced by one 1\.2 and by two 1\.2"):
        STAGES.get("acme.round")


@pytest.mark.usefixtures("acme")
def test_what_is_registered_stands_before_what_is_announced() -> None:
    mine = type("Mine", (SEARCHERS.get("uniform"),), {})
    SEARCHERS.register("acme.nearby", mine)
    assert SEARCHERS.get("acme.nearby") is mine
    assert SEARCHERS.package("acme.nearby") == ""
    SEARCHERS.forget("acme.nearby")
    assert SEARCHERS.get("acme.nearby") is not mine


def test_metadata_beside_a_study_file_announce_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_metadata(tmp_path, "evil", "6", {"petra.stages": {"evil.do": "evil:Do"}})
    (tmp_path / "evil.py").write_text("raise AssertionError('was imported')")
    not_installed([str(tmp_path)])  # as `petra.sources.find_modules` does
    sys.path.append(str(tmp_path))
    assert "evil.do" not in STAGES


def test_unreadable_metadata_are_passed_over(tmp_path: Path, acme: Path) -> None:
    (acme / "odd-1.dist-info").mkdir()
    (acme / "odd-1.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[petra.stages\n=\n")
    assert "acme.round" in STAGES
    assert "no.such" not in EXECUTORS
    assert "acme.packed" in RUNTIMES


def test_what_lacks_is_said_on_one_line() -> None:
    error = missing_error(Path("d"), [("stage a\x1b[31m", "x 1"), ("metric b", "y\n2")])
    assert "\x1b" not in str(error)
    assert error.hint == "install it first: pip install x y\\n2"
