"""A package that pip has installed, used through the command line: in the workers, in the process
that measures, and when it is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packages import ACME

import petra

STUDY = """
workload: digits
target: acme.packed
search: acme.nearby
objectives: [quality, download_bytes]
callbacks: [acme.diary, csv]
space:
  stages: [acme.round]
budget: {trials: 2}
workdir: run
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is installed, from a copy, without a network."""
    place = tmp_path_factory.mktemp("installed")
    copy = shutil.copytree(ACME, place / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command = [*pip, "--no-index", "--target", str(place / "site"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        pytest.skip("there is no pip here")
    assert done.returncode == 0, done.stderr
    return place / "site"


def petra_command(
    *arguments: str, cwd: Path, site: Path | None
) -> subprocess.CompletedProcess[str]:
    home = str(Path(petra.__file__).parents[1])
    path = os.pathsep.join([home, *([str(site)] if site else [])])
    command = [sys.executable, "-m", "petra.cli.main", *arguments]
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_line_uses_an_installed_package(target: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    done = petra_command("run", "study.yaml", "--quiet", cwd=tmp_path, site=target)
    assert done.returncode == 0, done.stderr
    trials = (tmp_path / "run" / "trials.csv").read_text().splitlines()
    assert len(trials) == 4
    assert "download_bytes" in trials[0]
    assert (tmp_path / "run" / "diary.jsonl").is_file()
    (file,) = (tmp_path / "run" / "artifacts" / "00001").glob("*.onnxz")
    shown = petra_command("verify", str(file), cwd=tmp_path, site=target)
    assert shown.returncode == 0, shown.stderr

    listed = petra_command("methods", "--json", cwd=tmp_path, site=target)
    packages = {card["name"]: card["package"] for card in json.loads(listed.stdout)}
    assert packages["acme.round"] == "acme-petra 1.2"
    assert packages["tune"] == "petra"

    gone = petra_command("resume", "run", "--trials", "+1", cwd=tmp_path, site=None)
    assert gone.returncode == 2
    assert "download_bytes of the package acme-petra 1.2" in gone.stderr
    again = petra_command("resume", "run", "--trials", "+1", cwd=tmp_path, site=target)
    assert again.returncode == 0, again.stderr
    assert len((tmp_path / "run" / "trials.csv").read_text().splitlines()) == 5
