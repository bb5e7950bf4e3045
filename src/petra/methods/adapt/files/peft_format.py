"""Modules as the library peft writes them: ``adapter_config.json`` and
``adapter_model.safetensors``, read by ``peft.PeftModel.from_pretrained(base, directory)``.

Names are those of peft's checkpoints (its ``utils/save_and_load.py``): the model inside
``base_model.model``, ``lora_A.weight`` (rank, in), ``lora_B.weight`` (out, rank),
``lora_magnitude_vector`` (out,), ``ia3_l`` (out, 1) or, where inputs are scaled, (1, in);
``prompt_embeddings`` for prompts (length, width) and prefixes (length, layers x keys and values x
heads x size), whose model is ``base_model``. peft is not needed to write them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.errors import ConfigError
from petra.core.text import json_text
from petra.methods.adapt.files.base_view import at, bare, own_tensors, places
from petra.methods.adapt.files.record import ModuleEntry
from petra.methods.adapt.files.save import Stored, insert_key, stored
from petra.methods.adapt.files.tensors_file import written
from petra.model.kinds import is_transposed_linear
from petra.model.layers.lora import ALPHA, lora_scale

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}
Config = dict[str, object]
Made = tuple[Config, dict[str, Tensor]]


def peft_files(model: nn.Module) -> dict[str, bytes]:
    """The files of a model's modules, by name. Raises ConfigError for modules that peft has not,
    or has not beside each other.
    """
    found = stored(model)
    kinds = {entry.kind for entry in found.modules} - {"without_prompt"}
    if len(kinds) != 1 or not kinds <= _WRITERS.keys():
        raise ConfigError(
            f"peft cannot hold {' and '.join(sorted(kinds)) or 'a head alone'} in one file",
            hint=f"it has each of {', '.join(_WRITERS)} alone; petra's own format has all",
        )
    (kind,) = kinds
    config, tensors = _WRITERS[kind](model, found)
    inside = "base_model" if "prompt_embeddings" in tensors else "base_model.model"
    saved, head = _head(model, found)
    tensors |= {f"{inside}.{name}": tensor for name, tensor in head.items()}
    name = getattr(getattr(bare(model), "config", None), "_name_or_path", "") or None
    everything = {
        "base_model_name_or_path": name,
        "inference_mode": True,
        "modules_to_save": saved or None,
        "revision": None,
        "task_type": None,
        **config,
    }
    return {
        WEIGHTS_FILE: written(tensors),
        CONFIG_FILE: (json_text(dict(sorted(everything.items()))) + "\n").encode(),
    }


def _head(model: nn.Module, found: Stored) -> tuple[list[str], dict[str, Tensor]]:
    """Modules that were trained as they are, and all that peft looks for in them."""
    paths = sorted({name.rpartition(".")[0] for name in found.trained})
    inside = tuple(f"{path}." for path in paths)
    kept = {n: t for n, t in own_tensors(model).items() if inside and n.startswith(inside)}
    return paths, kept


@dataclass(frozen=True)
class _Entry:
    """A module, with its tensors by their names in the insert."""

    module: ModuleEntry
    tensors: Mapping[str, Tensor]


def _entries(found: Stored) -> list[_Entry]:
    """In the order in which they lie in the model."""
    listed = []
    for module in reversed(found.modules):
        start = insert_key(module, "")
        inside = {k.removeprefix(start): t for k, t in found.inserts.items() if k.startswith(start)}
        listed += [_Entry(module, inside)] if inside else []
    return listed


def _lora(model: nn.Module, found: Stored) -> Made:
    entries = _entries(found)
    ranks = {e.module.path: int(e.module.settings["rank"]) for e in entries}
    scales = {e.module.path: float(e.module.settings["scale"]) for e in entries}
    stable = _all(ranks, lambda path, r: scales[path] == lora_scale(r, "rslora"))
    plain = _all(ranks, lambda path, r: scales[path] == lora_scale(r, "lora"))
    alphas = {path: ALPHA if stable or plain else scales[path] * r for path, r in ranks.items()}
    tensors: dict[str, Tensor] = {}
    for e in entries:
        place = f"base_model.model.{e.module.path}"
        tensors[f"{place}.lora_A.weight"] = e.tensors["down.weight"]
        tensors[f"{place}.lora_B.weight"] = e.tensors["up.weight"]
        if e.module.kind == "dora":
            tensors[f"{place}.lora_magnitude_vector"] = e.tensors["magnitude"]
    rank, other_ranks = _usual(ranks)
    alpha, other_alphas = _usual(alphas)
    return {
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": other_ranks,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "alpha_pattern": other_alphas,
        "lora_dropout": max(float(e.module.settings["dropout"]) for e in entries),
        "use_rslora": stable and not plain,
        "use_dora": entries[0].module.kind == "dora",
        "bias": "none",
        **_targets(model, list(ranks)),
    }, tensors


def _all(ranks: Mapping[str, int], holds: Callable[[str, int], bool]) -> bool:
    return all(holds(path, rank) for path, rank in ranks.items())


def _usual(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The most frequent value, and the others by path: the longest first, since peft takes the
    first that ends a layer's path.
    """
    usual = Counter(values.values()).most_common(1)[0][0]
    others = sorted((path for path, v in values.items() if v != usual), key=len, reverse=True)
    return usual, {path: values[path] for path in others}


def _targets(model: nn.Module, paths: Sequence[str]) -> Config:
    """Which layers: by their paths, or where those end other layers' paths, too, by a pattern."""
    ends = tuple(f".{path}" for path in paths)
    ambiguous = any(place.path.endswith(ends) for place in places(model))
    pattern = "|".join(re.escape(path) for path in paths)
    return {
        "target_modules": f"({pattern})" if ambiguous else list(paths),
        "fan_in_fan_out": all(is_transposed_linear(bare(at(model, path))) for path in paths),
    }


def _ia3(model: nn.Module, found: Stored) -> Made:
    entries = _entries(found)
    inputs = [e.module.path for e in entries if e.module.settings["side"] == "input"]
    tensors = {}
    for e in entries:
        values = e.tensors["values"].detach()
        shape = (1, -1) if e.module.path in inputs else (-1, 1)
        tensors[f"base_model.model.{e.module.path}.ia3_l"] = values.reshape(shape)
    targets = _targets(model, [e.module.path for e in entries])
    forward: object = inputs
    if isinstance(targets["target_modules"], str) and inputs:
        forward = f"({'|'.join(map(re.escape, inputs))})"
    return {"peft_type": "IA3", "feedforward_modules": forward, **targets}, tensors


def _prompt(model: nn.Module, found: Stored) -> Made:
    (entry,) = _entries(found)
    length, width = entry.tensors["states"].shape
    config = {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": length,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "prompt_tuning_init": "RANDOM",
        "task_type": _task(model),
    }
    return config, {"prompt_embeddings": entry.tensors["states"]}


def _prefix(model: nn.Module, found: Stored) -> Made:
    states = [e.tensors["states"].detach() for e in _entries(found)]
    wanted = getattr(getattr(bare(model), "config", None), "num_hidden_layers", len(states))
    if len({s.shape for s in states}) > 1 or len(states) != wanted:
        raise ConfigError(
            f"peft has prefixes of one length in all {wanted} layers, here are {len(states)}",
            hint="petra's own format has them in any layers",
        )
    _, length, heads, size = states[0].shape
    flat = torch.stack(states).permute(2, 0, 1, 3, 4).reshape(length, -1)
    config = {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": length,
        "token_dim": heads * size,
        "num_attention_heads": heads,
        "num_layers": len(states),
        "num_transformer_submodules": 1,
        "encoder_hidden_size": heads * size,
        "prefix_projection": False,
        "task_type": _task(model),
    }
    return config, {"prompt_embeddings": flat}


def _task(model: nn.Module) -> str:
    """peft's word for what a model of Hugging Face's does, by the name of its class."""
    name = type(bare(model)).__name__
    return next((task for end, task in _TASKS.items() if name.endswith(end)), "FEATURE_EXTRACTION")


_WRITERS: Mapping[str, Callable[[nn.Module, Stored], Made]] = {
    "lora": _lora,
    "dora": _lora,
    "ia3": _ia3,
    "prefix": _prefix,
    "prompt": _prompt,
}
