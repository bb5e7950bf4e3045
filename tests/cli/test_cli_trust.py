"""Whose functions are called: those that somebody named on this machine, and no others unless they
are trusted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import petra
from petra.api import resume_study
from petra.config import parse_config
from petra.core.errors import StoreError
from petra.measure.host import describe_host
from petra.sources import IDENTITY_NOTE, PLACES_NOTE, calls, check_trust, remember_start
from petra.store.store import Store

PETRA = (sys.executable, "-P", "-m", "petra.cli.main")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(petra.__file__).parents[1])}


def config(canary: Path, **more: object) -> dict[str, object]:
    call = {"call": "subprocess:getoutput", "args": {"cmd": f"touch {canary}\x1b[2J"}}
    return parse_config({"model": call, "task": call, "budget": {"trials": 3}, **more}).model_dump(
        mode="json"
    )


def foreign(directory: Path, canary: Path, places: list[str] | None = None) -> Path:
    """A study as somebody else might send it."""
    with Store.create(directory, config(canary), describe_host()) as store:
        store.set_note(IDENTITY_NOTE, "0" * 32)
        store.set_note(PLACES_NOTE, places or [])
    return directory


def run(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PETRA, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT | environment,
        timeout=120,
        check=False,
    )


def test_resuming_a_foreign_study_says_what_it_would_call(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    done = run("resume", str(foreign(tmp_path / "study", canary)), "--trials", "+1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "was not started here by you" in done.stderr
    assert done.stderr.count('"subprocess:getoutput"') == 2
    assert f"touch {canary}" in done.stderr
    assert "--trust" in done.stderr
    assert "\x1b" not in done.stderr
    assert not canary.exists()


def test_trust_is_given_by_name(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    directory = foreign(tmp_path / "study", canary)
    with pytest.raises(StoreError, match="was not started here"):
        resume_study(directory)
    assert not canary.exists()
    done = run("resume", str(directory), "--trust")
    assert "model.call: subprocess:getoutput returned str" in done.stderr


def test_nothing_is_imported_from_where_a_foreign_study_says(tmp_path: Path) -> None:
    (tmp_path / "typing_extensions.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    (tmp_path / "pandas.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    directory = foreign(tmp_path / "study", tmp_path / "canary", [str(tmp_path)])
    for command in ("show", "report", "export", "resume"):
        run(command, str(directory), cwd=tmp_path)
    assert not (tmp_path / "canary").exists()


def started(directory: Path, **more: object) -> Path:
    """A study of one's own."""
    with Store.create(directory, config(directory / "canary", **more), describe_host()) as store:
        store.set_note(IDENTITY_NOTE, "1" * 32)
        store.set_note(PLACES_NOTE, ["/somewhere"])
        assert remember_start(store, parse_config(store.config)) == ""
    return directory


def trusted(directory: Path) -> bool:
    with Store.open(directory, write=False) as store:
        try:
            check_trust(store, parse_config(store.config), trust=False)
        except StoreError as error:
            return "would call" not in error.message
    return True


def test_ones_own_study_is_known_and_its_copies_are_not(tmp_path: Path) -> None:
    own = started(tmp_path / "own")
    assert trusted(own)
    link = tmp_path / "link"
    link.symlink_to(own)
    assert trusted(link)
    copied = Path(shutil.copytree(own, tmp_path / "copy"))
    with (
        Store.open(copied, write=False) as store,
        pytest.raises(StoreError, match="was moved or copied"),
    ):
        check_trust(store, parse_config(store.config), trust=False)


@pytest.mark.parametrize("changed", ["call", "args", "places", "identity"])
def test_what_was_edited_is_not_trusted(tmp_path: Path, changed: str) -> None:
    own = started(tmp_path / "own")
    with Store.open(own, write=True) as store:
        settings = store.config
        if changed == "call":
            settings["task"]["call"] = "os:system"
        if changed == "args":
            settings["model"]["args"]["cmd"] = "id"
        store.set_config(settings)
        if changed == "places":
            store.set_note(PLACES_NOTE, [str(tmp_path)])
        if changed == "identity":
            store.set_note(IDENTITY_NOTE, "2" * 32)
    assert not trusted(own)


def test_a_record_that_others_could_have_written_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    own = started(tmp_path / "own")
    assert trusted(own)
    place = tmp_path / "state" / "petra" / "started"
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)
    assert not trusted(own)


@pytest.mark.parametrize("state", ["/proc/nowhere", "/dev/null"])
def test_a_state_directory_that_cannot_be_written_is_said_not_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state)
    with Store.create(tmp_path / "study", config(tmp_path / "canary"), describe_host()) as store:
        store.set_note(IDENTITY_NOTE, "1" * 32)
        assert remember_start(store, parse_config(store.config)) != ""
    assert not trusted(tmp_path / "study")


def test_workloads_need_trust_only_to_read_files_of_the_studys_choice() -> None:
    harmless = parse_config(
        {"workload": {"name": "cifar10", "args": {"model": "resnet56", "train_items": 100}}}
    )
    assert calls(harmless, ["/x"]) == ""
    for argument in ("weights", "data", "cache"):
        reads = parse_config({"workload": {"name": "sst2", "args": {argument: "/proc/kmsg"}}})
        assert "/proc/kmsg" in calls(reads, [])


@pytest.mark.slow
def test_bench_of_a_foreign_study_asks_too(tmp_path: Path) -> None:
    from petra.testing.studies import toy_study

    canary = tmp_path / "canary"
    directory = toy_study(tmp_path / "study", trials=4)
    with Store.open(directory, write=True) as store:
        call = config(canary)
        store.set_config(
            store.config | {"workload": None, "model": call["model"], "task": call["task"]}
        )
    done = run("bench", str(directory), "--runtimes", "onnxruntime")
    assert done.returncode == 2
    assert "would call" in done.stderr
    assert not canary.exists()


@pytest.mark.slow
def test_a_module_beside_the_study_stands_in_for_nothing_installed(tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text(
        f"open({str(tmp_path / 'canary')!r}, 'w')\ndef model(): pass\ntask = model\n"
    )
    (tmp_path / "study.yaml").write_text(
        f"model: colorsys:model\ntask: colorsys:task\nworkdir: {tmp_path / 'out'}\n"
    )
    done = run("run", str(tmp_path / "study.yaml"), cwd=tmp_path)
    assert done.returncode == 2
    assert "is the name of" in done.stderr
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out").exists()
