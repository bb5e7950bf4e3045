"""A real search, from its task to a bundle that verifies and a front that is as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_bundles import CLASSES, FILES, RAW, searched
from typer.testing import CliRunner

from petra.cli.main import app
from petra.report.bundle_check import open_bundle, replay_sample
from petra.testing import assert_artifact

pytestmark = pytest.mark.slow


def test_what_a_search_found_ships_verifies_and_rechecks(tmp_path: Path) -> None:
    study = searched(tmp_path / "study")
    path = study.front.pick("smallest").export(tmp_path / "bundle", preprocessing=RAW)
    assert {file.name for file in path.parent.iterdir()} == FILES
    told = json.loads(path.with_name("evidence.json").read_text())
    assert told["classes"] == CLASSES
    assert told["inside"][0].startswith("takes the mean off")
    assert "no probabilities" in told["outputs_in_words"][0]
    assert told["sample"]["tolerance"] in (1e-3, 5e-2)
    replayed = replay_sample(open_bundle(path.parent))
    assert replayed is not None
    assert replayed.max_abs_error == 0
    assert_artifact(path.parent, "quality >= baseline - 0.1", "size <= baseline")
    done = CliRunner().invoke(app, ["recheck", str(study.directory), "--no-speed", "--json"])
    data = json.loads(done.stdout)
    assert (done.exit_code, data["moved"]) == (0, False)
    looks = [look for model in data["models"] for look in model["looks"]]
    assert {look["said"] for look in looks} == {
        *("as the search left them", "the same to the last bit", "the same"),
    }
