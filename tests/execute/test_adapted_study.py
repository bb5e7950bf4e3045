"""A study of modules, from the search to files that load: everything that it asks for is measured,
and what it exports is what was trained.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import petra
from petra.cli.main import app
from petra.core.errors import ArtifactError, ConfigError
from petra.model.copies.copying import copy_model
from petra.report.bundle import Member
from petra.study import Study
from petra.tasks.inputs import call, main_output, named, predictions
from petra.testing.architectures import ARCHITECTURES

TRAINED = {"epochs": 1, "batch_size": 64}
LORA = {"lora": 2, "lora_targets": "all", **TRAINED}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The untouched model, which is not allowed, LoRA that is merged, and the same quantized: its
    modules come from the cache.
    """
    model, task = ARCHITECTURES.get("bert")()
    adapt = [{"stage": "adapt", "params": LORA}]
    return petra.compress(
        model,
        task,
        objectives=["quality", "trainable_params", "module_bytes"],
        constraints=[
            *("latency_unmerged_ratio <= 50", "train_memory_mb <= 100 GB"),
            *("trainable_share <= 5", "trainable_params >= 1"),
        ],
        space={
            "stages": {"adapt": {}, "quantize.dynamic": {}},
            "initial": [adapt, [*adapt, {"stage": "quantize.dynamic"}]],
            "recipes": False,
        },
        budget={"trials": 2},
        workdir=tmp_path_factory.mktemp("studies") / "study",
    )


@pytest.mark.slow
def test_what_is_asked_is_measured(study: Study) -> None:
    base, lora, quantized = study.trials
    assert base.metrics["trainable_params"].mean == base.metrics["module_bytes"].mean == 0
    for trial in (lora, quantized):
        assert trial.measured, trial.failure
        counted = trial.trace[0].details["adapt"]
        assert isinstance(counted, dict)
        assert trial.metrics["trainable_params"].mean == counted["trainable_parameters"]
        assert trial.metrics["trainable_share"].mean == pytest.approx(counted["share"])
        assert trial.metrics["train_memory_mb"].mean > 10
        place = (study.directory / trial.artifact).parent / "modules"
        stored = sum(f.stat().st_size for f in place.iterdir())
        assert trial.metrics["module_bytes"].mean == stored
        elements = sum(t.numel() for t in load_file(place / "modules.safetensors").values())
        assert elements == counted["trainable_parameters"] + counted["head_parameters"]
        assert "latency_unmerged_ms" not in trial.metrics, "nobody asked for it"
        assert not (place.parent / "unmerged").exists()
    assert quantized.trace[0].cached
    assert lora.metrics["latency_unmerged_ratio"] != lora.metrics["latency_ratio"]
    assert base.metrics["latency_unmerged_ratio"] == base.metrics["latency_ratio"]


@pytest.mark.slow
def test_the_modules_are_those_of_the_file(study: Study, tmp_path: Path) -> None:
    """Base and modules together are the exported file, in which they are merged."""
    model, task = ARCHITECTURES.get("bert")()
    lora = study.trials[1]
    member = Member(lora, study.front, study.directory)  # whether it is on the front or not
    path = member.export(tmp_path / "bundle", modules=True)
    again = petra.load_modules(model, path.parent / "modules")
    inputs = task.example(4)
    session = onnxruntime.InferenceSession(str(path))
    feed = {name: t.numpy() for name, t in named(inputs).items()}
    (found, *_) = session.run(None, feed)
    with torch.no_grad():
        expected = main_output(predictions(call(again, inputs))).numpy()
    assert np.allclose(found, expected, atol=1e-4)
    with pytest.raises(ArtifactError, match="other weights"):
        petra.load_modules(_moved(model), path.parent / "modules")
    member.export(tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "modules").exists(), "of another export"
    member.export(tmp_path / "lora.onnx", modules=True)
    assert (tmp_path / "lora.modules" / "modules.json").is_file()


def _moved(model: torch.nn.Module) -> torch.nn.Module:
    moved = copy_model(model)
    with torch.no_grad():
        next(moved.parameters()).add_(1.0)
    return moved


@pytest.mark.slow
def test_the_command_exports_modules(study: Study, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    args = [str(study.directory), "--pick", "best", "--to", f"{place}/", "--modules"]
    done = CliRunner().invoke(app, ["export", *args, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["trial"] > 0
    assert {f.name for f in (place / "modules").iterdir()} == {
        *("modules.json", "modules.safetensors"),
    }


@pytest.mark.slow
def test_models_without_modules_and_changed_ones_are_refused(study: Study, tmp_path: Path) -> None:
    untouched = Member(study.trials[0], study.front, study.directory)
    with pytest.raises(ConfigError, match="no files of modules"):
        untouched.export(tmp_path / "none", modules=True)
    assert not (tmp_path / "none").exists()
    member = study.front.pick("best")
    file = member.artifact.parent / "modules" / "modules.safetensors"
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + b"x")
        with pytest.raises(ArtifactError, match="not the file that was trained"):
            member.export(tmp_path / "bundle", modules=True)
    finally:
        file.write_bytes(content)
    assert not (tmp_path / "bundle").exists()
