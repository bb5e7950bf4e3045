"""Modules in peft's own format: its names and settings, and where it is installed, its outputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import EACH, adapted, outputs, problem
from safetensors.torch import load_file
from torch import Tensor, nn

import petra
from petra.core.errors import ConfigError
from petra.methods.adapt import around
from petra.model.copies.copying import copy_model

QUERY = "bert.encoder.layer.0.attention.self.query"


def written(model: nn.Module, place: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    petra.save_modules(model, place, format="peft")
    assert {f.name for f in place.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config: dict[str, Any] = json.loads((place / "adapter_config.json").read_text())
    return config, load_file(place / "adapter_model.safetensors")


def inserts(model: nn.Module) -> dict[str, Any]:
    """What was inserted, by the paths of the layers as they are without modules."""
    return {path: m.insert for path, m in around(model).items()}


def test_lora(tmp_path: Path) -> None:
    model, _ = adapted("bert", lora=2)
    config, tensors = written(model, tmp_path / "peft")
    known = inserts(model)
    assert config["peft_type"] == "LORA"
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (2, 8, 0.0)
    assert not config["use_dora"]
    assert not config["use_rslora"]
    assert config["inference_mode"]
    assert sorted(config["target_modules"]) == sorted(known)
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["modules_to_save"] == ["bert.pooler.dense", "classifier"]
    for path, insert in known.items():
        assert torch.equal(
            tensors.pop(f"base_model.model.{path}.lora_A.weight"), insert.down.weight
        )
        assert torch.equal(tensors.pop(f"base_model.model.{path}.lora_B.weight"), insert.up.weight)
    heads = {
        f"base_model.model.{p}.{n}" for p in config["modules_to_save"] for n in ("weight", "bias")
    }
    assert tensors.keys() == heads, "and nothing else"


def test_the_scale_is_peft_s_own(tmp_path: Path) -> None:
    """alpha / r, or alpha / sqrt(r) with use_rslora."""
    for name in ("lora", "rslora", "dora"):
        model, _ = adapted("bert", **EACH[name])
        config, _ = written(model, tmp_path / name)
        root = math.sqrt(config["r"]) if config["use_rslora"] else config["r"]
        scales = {insert.scale for insert in inserts(model).values()}
        assert scales == {config["lora_alpha"] / root}
        assert config["use_rslora"] == (name == "rslora")
        assert config["use_dora"] == (name == "dora")


def test_dora_has_the_lengths_of_rows(tmp_path: Path) -> None:
    model, _ = adapted("bert", **EACH["dora"])
    _, tensors = written(model, tmp_path / "peft")
    found = tensors[f"base_model.model.{QUERY}.lora_magnitude_vector"]
    assert torch.equal(found, inserts(model)[QUERY].magnitude)
    assert found.shape == (32,)


def unequal() -> nn.Module:
    """One layer has another rank than the others."""
    model, _ = adapted("bert", lora=2)
    layer = around(model)[QUERY]
    layer.insert.down = nn.Linear(32, 3, bias=False)
    layer.insert.up = nn.Linear(3, 32, bias=False)
    return model


def test_ranks_that_differ_are_patterns(tmp_path: Path) -> None:
    model = unequal()
    config, _ = written(model, tmp_path / "peft")
    assert config["r"] == 2
    assert config["rank_pattern"] == {QUERY: 3}
    assert config["alpha_pattern"] == {QUERY: 3 * inserts(model)[QUERY].scale}


def test_peft_has_the_ranks_that_differ(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    base, task = problem("bert")
    model = unequal()
    petra.save_modules(model, tmp_path / "peft", format="peft")
    theirs = peft.PeftModel.from_pretrained(copy_model(base), str(tmp_path / "peft"))
    assert torch.allclose(outputs(theirs, task), outputs(model, task), atol=1e-5)


def test_ia3_has_rows_for_inputs_and_columns_for_outputs(tmp_path: Path) -> None:
    model, _ = adapted("bert", ia3=True)
    config, tensors = written(model, tmp_path / "peft")
    assert config["peft_type"] == "IA3"
    assert set(config["feedforward_modules"]) < set(config["target_modules"])
    for path, insert in inserts(model).items():
        found = tensors[f"base_model.model.{path}.ia3_l"]
        size = len(insert.values)
        inside = path in config["feedforward_modules"]
        assert found.shape == ((1, size) if inside else (size, 1))
        assert torch.equal(found.flatten(), insert.values)


def test_prefixes_lie_as_peft_reads_them(tmp_path: Path) -> None:
    """(batch, length, layers x 2, heads, size), permuted to (layers x 2, batch, heads, ...)."""
    model, _ = adapted("bert", prefix=3)
    config, tensors = written(model, tmp_path / "peft")
    assert (config["num_virtual_tokens"], config["num_layers"]) == (3, 2)
    assert (config["token_dim"], config["num_attention_heads"]) == (32, 4)
    assert config["task_type"] == "SEQ_CLS"
    flat = tensors["prompt_embeddings"]
    assert flat.shape == (3, 2 * 2 * 32)
    read = flat.view(1, 3, 4, 4, 8).permute(2, 0, 3, 1, 4).split(2)
    for (keys, values), insert in zip(read, inserts(model).values(), strict=True):
        assert torch.equal(keys[0].transpose(0, 1), insert.states[0])
        assert torch.equal(values[0].transpose(0, 1), insert.states[1])
    assert {k for k in tensors if k != "prompt_embeddings"} == {
        f"base_model.{p}.{n}" for p in config["modules_to_save"] for n in ("weight", "bias")
    }


def test_prompts(tmp_path: Path) -> None:
    model, _ = adapted("gpt2", prompt=2)
    config, tensors = written(model, tmp_path / "peft")
    assert config["peft_type"] == "PROMPT_TUNING"
    assert (config["num_virtual_tokens"], config["token_dim"]) == (2, 32)
    (insert,) = inserts(model).values()
    assert torch.equal(tensors["prompt_embeddings"], insert.states)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"serial": 2}, "peft cannot hold serial"),
        ({"bitfit": True}, "peft cannot hold bitfit"),
        ({"lora": 1, "ia3": True}, "peft cannot hold ia3 and lora"),
        ({"prefix": 1, "layer": {"bert.encoder.layer.0": True}}, "in all 2 layers, here are 1"),
    ],
)
def test_what_peft_has_not_is_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    model, _ = adapted("bert", **settings)
    with pytest.raises(ConfigError, match=said) as error:
        petra.save_modules(model, tmp_path / "peft", format="peft")
    assert error.value.hint
    assert not (tmp_path / "peft").exists()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3"])
def test_peft_computes_the_same(tmp_path: Path, name: str, kind: str) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    base, task = problem(name)
    model, _ = adapted(name, **EACH[kind])
    petra.save_modules(model, tmp_path / "peft", format="peft")
    theirs = peft.PeftModel.from_pretrained(copy_model(base), str(tmp_path / "peft"))
    assert torch.allclose(outputs(theirs, task), outputs(model, task), atol=1e-5)


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_peft_reads_prefixes_and_prompts(tmp_path: Path, kind: str) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    base, _ = problem("gpt2")
    model, _ = adapted("gpt2", **EACH[kind])
    _, tensors = written(model, tmp_path / "peft")
    theirs = peft.PeftModel.from_pretrained(copy_model(base), str(tmp_path / "peft"))
    kept = theirs.get_prompt_embedding_to_save("default")
    assert torch.equal(kept, tensors["prompt_embeddings"])
