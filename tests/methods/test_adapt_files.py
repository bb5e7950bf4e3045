"""Modules come back from their files bit for bit, and a file has what was counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import ALL, EACH, adapted, around_layers_of, outputs, problem
from safetensors.torch import load_file
from torch import nn

import petra
from petra.core.errors import ArtifactError, ConfigError
from petra.methods.adapt import around, inserted
from petra.methods.adapt.files.base_view import structure_digest
from petra.methods.base import Context, Stage
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.methods.quantize.weights import WeightQuantize
from petra.model.copies.copying import copy_model
from petra.model.description.state_hash import state_hash


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", [*EACH, "all"])
def test_a_round_trip_is_the_same_model_bit_for_bit(tmp_path: Path, kind: str) -> None:
    base, task = problem("bert")
    before = state_hash(base)
    model, _ = adapted("bert", **EACH.get(kind, ALL))
    assert petra.save_modules(model, tmp_path / "modules") == tmp_path / "modules"
    again = petra.load_modules(base, tmp_path / "modules")
    assert state_hash(again) == state_hash(model)
    assert torch.equal(outputs(again, task), outputs(model, task))
    assert not torch.equal(outputs(again, task), outputs(base, task))
    assert trainable(again) == trainable(model)
    assert not again.training
    assert state_hash(base) == before


@pytest.mark.parametrize(
    "name", ["roberta", "distilbert", "albert", "deberta-v2", "t5", "gpt2", "llama", "vit"]
)
def test_models_of_every_make_come_back(tmp_path: Path, name: str) -> None:
    base, task = problem(name)
    settings: dict[str, Any] = {"serial": 2, "lora": 1, "bitfit": True}
    model, _ = adapted(name, **settings)
    petra.save_modules(model, tmp_path / "modules")
    again = petra.load_modules(base, tmp_path / "modules")
    assert state_hash(again) == state_hash(model)
    assert torch.equal(outputs(again, task), outputs(model, task))


@pytest.mark.parametrize("stage", [DynamicQuantize(), WeightQuantize()])
def test_modules_around_codes_come_back(tmp_path: Path, stage: Stage) -> None:
    base, task = problem("bert")
    codes, _ = stage.apply(copy_model(base), Context(task, base, seed=0))
    model, _ = around_layers_of(codes, task, lora=2, serial=2)
    petra.save_modules(model, tmp_path / "modules")
    again = petra.load_modules(codes, tmp_path / "modules")
    assert state_hash(again) == state_hash(model)
    assert torch.equal(outputs(again, task), outputs(model, task))
    with pytest.raises(ArtifactError, match="another structure"):
        petra.load_modules(base, tmp_path / "modules")


def test_torchs_own_attention_is_taken_apart_as_it_was(tmp_path: Path) -> None:
    base, task = problem("torch-transformer")
    model, _ = adapted("torch-transformer", lora=1)
    petra.save_modules(model, tmp_path / "modules")
    again = petra.load_modules(base, tmp_path / "modules")
    assert torch.equal(outputs(again, task), outputs(model, task))


@pytest.mark.parametrize("kind", [*EACH, "all"])
def test_counted_is_stored_is_in_the_file(tmp_path: Path, kind: str) -> None:
    model, trace = adapted("bert", **EACH.get(kind, ALL))
    petra.save_modules(model, tmp_path / "modules")
    record = json.loads((tmp_path / "modules" / "modules.json").read_text())
    tensors = load_file(tmp_path / "modules" / "modules.safetensors")
    of_modules = sum(p.numel() for m in inserted(model).values() for p in m.parameters())
    counted = trace.details["adapt"]
    assert isinstance(counted, dict)
    assert counted["trainable_parameters"] == record["parameters"]["modules"] == of_modules
    assert counted["head_parameters"] == record["parameters"]["head"]
    elements = sum(t.numel() for t in tensors.values())
    assert elements == counted["trainable_parameters"] + counted["head_parameters"]


def test_the_files_are_small_and_the_same_every_time(tmp_path: Path) -> None:
    model, trace = adapted("bert", **EACH["lora"])
    for place in ("one", "two"):
        petra.save_modules(model, tmp_path / place)
    for name in ("modules.json", "modules.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    counted: Any = trace.details["adapt"]
    numbers = 4 * (counted["trainable_parameters"] + counted["head_parameters"])
    tensors = tmp_path / "one" / "modules.safetensors"
    assert numbers < tensors.stat().st_size < numbers + 4096
    assert b"pickle" not in tensors.read_bytes()


def test_what_comes_back_can_be_folded_in_and_stored_again(tmp_path: Path) -> None:
    base, _ = problem("bert")
    model, _ = adapted("bert", **EACH["lora"])
    petra.save_modules(model, tmp_path / "modules")
    again = petra.load_modules(base, tmp_path / "modules")
    folded = {path: m.folded() for path, m in around(again).items()}
    assert all(isinstance(layer, nn.Linear) for layer in folded.values())
    petra.save_modules(petra.load_modules(base, tmp_path / "modules"), tmp_path / "more")
    assert (tmp_path / "more" / "modules.json").read_bytes() == (
        tmp_path / "modules" / "modules.json"
    ).read_bytes()


def test_a_head_alone_is_stored(tmp_path: Path) -> None:
    base, task = problem("bert")
    model = copy_model(base).requires_grad_(False)
    with torch.no_grad():
        model.classifier.weight.add_(1.0)  # type: ignore[operator, union-attr]
    model.classifier.requires_grad_(True)  # type: ignore[operator, union-attr]
    petra.save_modules(model, tmp_path / "head")
    record = json.loads((tmp_path / "head" / "modules.json").read_text())
    assert record["parameters"] == {"modules": 0, "head": 4 * 32 + 4}
    again = petra.load_modules(base, tmp_path / "head")
    assert torch.equal(outputs(again, task), outputs(model, task))
    with pytest.raises(ConfigError, match="peft cannot hold a head alone"):
        petra.save_modules(model, tmp_path / "peft", format="peft")


def test_the_digest_sees_the_model_without_its_modules() -> None:
    base, _ = problem("bert")
    model, _ = adapted("bert", **ALL)
    assert structure_digest(model) == structure_digest(base)
    other = copy_model(base)
    other.classifier = nn.Linear(32, 5)
    assert structure_digest(other) != structure_digest(base)


def test_another_model_is_refused(tmp_path: Path) -> None:
    base, task = problem("bert")
    model, _ = adapted("bert", **EACH["lora"])
    petra.save_modules(model, tmp_path / "modules")
    with pytest.raises(ArtifactError, match="another structure"):
        petra.load_modules(problem("distilbert")[0], tmp_path / "modules")
    other = copy_model(base)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    with pytest.raises(ArtifactError, match="other weights") as error:
        petra.load_modules(other, tmp_path / "modules")
    assert "check_weights=False" in error.value.hint
    again = petra.load_modules(other, tmp_path / "modules", check_weights=False)
    assert not torch.equal(outputs(again, task), outputs(model, task))
    with pytest.raises(ConfigError, match="modules already"):
        petra.load_modules(model, tmp_path / "modules")


def test_the_head_that_was_trained_does_not_count_as_other_weights(tmp_path: Path) -> None:
    """The base's own head may be anything: it is replaced."""
    base, task = problem("bert")
    model, _ = adapted("bert", **EACH["serial"])
    petra.save_modules(model, tmp_path / "modules")
    other = copy_model(base)
    with torch.no_grad():
        other.classifier.weight.zero_()  # type: ignore[operator, union-attr]
    again = petra.load_modules(other, tmp_path / "modules")
    assert torch.equal(outputs(again, task), outputs(model, task))


def test_models_without_modules_are_refused(tmp_path: Path) -> None:
    base, _ = problem("bert")
    for model in (base, copy_model(base).requires_grad_(False)):
        with pytest.raises(ConfigError, match="no modules apart"):
            petra.save_modules(model, tmp_path / "modules")
    assert not (tmp_path / "modules").exists()


def test_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = adapted("bert", **EACH["lora"])
    second, _ = adapted("bert", **EACH["ia3"])
    place = petra.save_modules(first, tmp_path / "modules")
    before = {f.name: f.read_bytes() for f in place.iterdir()}
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "modules.json":
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left"):
        petra.save_modules(second, place)
    monkeypatch.undo()
    assert {f.name: f.read_bytes() for f in place.iterdir()} == before
    assert list(tmp_path.iterdir()) == [place], "nothing is left of the attempt"
    petra.save_modules(second, place)
    assert {f.name for f in place.iterdir()} == before.keys()
    assert {f.name: f.read_bytes() for f in place.iterdir()} != before


def test_nothing_of_others_is_replaced(tmp_path: Path) -> None:
    model, _ = adapted("bert", **EACH["ia3"])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds 'notes.txt'"):
        petra.save_modules(model, tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="no directory"):
        petra.save_modules(model, tmp_path / "file")
    with pytest.raises(ConfigError, match="unknown format 'pickle'"):
        petra.save_modules(model, tmp_path / "new", format="pickle")
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt", "file"}
