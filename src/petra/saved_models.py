"""Models from folders that others' libraries write: Hugging Face's ``save_pretrained``,
sentence-transformers' ``save``.

Weights are read from safetensors alone, classes are those that the installed transformers has: code
or pickles that lie in such a folder are never run.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from petra.core.errors import DataError, MissingExtra
from petra.core.text import first_line, shown
from petra.networks.sentence_encoder import POOLINGS, SentenceEncoder, TokenPooling, UnitLength

CONFIG, MODULES, ADAPTER = "config.json", "modules.json", "adapter_config.json"
_HINT = "a folder that model.save_pretrained(folder) wrote: config.json and .safetensors files"
_FLAGS: Mapping[str, str] = {
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)
}


def pretrained(folder: str | Path) -> nn.Module:
    """The model in a folder, in float32 and evaluation mode.

    Of ``save_pretrained`` it is the class that config.json names (a classifier with its head); of
    sentence-transformers, whose folder has a modules.json, a `SentenceEncoder` from tokens to
    embeddings (n, d). Nothing is downloaded.

    >>> model = petra.pretrained("my-classifier")

    Needs the extra ``text``. Raises MissingExtra, and DataError for anything else than such a
    folder, for weights that are pickled, and for models whose code is not in transformers.
    """
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"{place}: no such folder", hint=_HINT)
    if (place / MODULES).is_file():
        return _sentence_encoder(place).eval()
    if (place / ADAPTER).is_file() and not (place / CONFIG).is_file():
        raise DataError(
            f"{place} holds an adapter, not a model",
            hint="put it into its model with peft and save that: model.merge_and_unload()",
        )
    return _transformer(place).eval()


def _transformer(place: Path, *, bare: bool = False) -> nn.Module:
    """The class that config.json names with the folder's weights; the `bare` encoder of it, without
    the layer that makes one vector of the first token, whatever head it was pretrained with.
    """
    config = _json(place / CONFIG)
    if config.get("auto_map"):
        raise DataError(
            f"{place}: its model is code that lies beside it (auto_map), which petra does not run",
            hint="load it yourself, with trust_remote_code if you trust it, and give the module",
        )
    transformers = transformers_library()
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    if bare and "For" in name:
        name = f"{name.partition('For')[0]}Model"
    kind: Any = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise DataError(
            f"{place}: transformers {transformers.__version__} has no model {shown(name)}",
            hint="architectures in config.json names the class: is transformers too old for it?",
        )
    if not list(place.glob("*.safetensors")):
        raise DataError(
            f"{place}: no .safetensors file",
            hint="other weights are pickles: load them where you trust them, and save the model"
            " anew with model.save_pretrained(folder)",
        )
    pooler = "add_pooling_layer" in inspect.signature(kind).parameters
    without = {"add_pooling_layer": False} if bare and pooler else {}
    with _reading(place), quiet_loading():
        chosen: Any = kind
        loaded, report = chosen.from_pretrained(
            place,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype="float32",
            **without,
        )
    if missing := sorted(report["missing_keys"]):
        raise DataError(
            f"{place}: {len(missing)} weights of {name} are not in the folder, such as"
            f" {shown(missing[0])}",
            hint="they would be random: save the model that was trained, head included",
        )
    model: nn.Module = loaded
    return model


# -- sentence-transformers -------------------------------------------------------------------------


def _sentence_encoder(place: Path) -> nn.Module:
    """What modules.json lists, in plain layers."""
    listed = _json(place / MODULES, kind=list)
    parts = [_part(place, entry) for entry in listed]
    encoder, pooling, *after = parts if len(parts) > 1 else (None, None)
    if not isinstance(pooling, TokenPooling) or encoder is None:
        raise DataError(
            f"{place}: its modules are {', '.join(type(part).__name__ for part in parts)}",
            hint="allowed: a Transformer, a Pooling, then any of Dense and Normalize",
        )
    return SentenceEncoder(encoder, pooling, nn.Sequential(*after))


def _part(place: Path, entry: object) -> nn.Module:
    kind = entry.get("type") if isinstance(entry, dict) else None
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or not isinstance(path, str) or _leaves(path):
        raise DataError(
            f"{place / MODULES}: {shown(entry)} is no module", hint="save the encoder again"
        )
    match kind.rpartition(".")[2]:
        case "Transformer":
            return _transformer(place / path, bare=True)
        case "Pooling":
            return TokenPooling(_poolings(place / path))
        case "Dense":
            return _dense(place / path)
        case "Normalize":
            return UnitLength()
    raise DataError(
        f"{place}: a layer {shown(kind)}",
        hint="allowed: Transformer, Pooling, Dense, Normalize; of others, give the module yourself",
    )


def _leaves(path: str) -> bool:
    return Path(path).is_absolute() or ".." in Path(path).parts


def _poolings(place: Path) -> list[str]:
    config = _json(place / CONFIG)
    given = config.get("pooling_mode")
    found = [given] if isinstance(given, str) else list(given) if isinstance(given, list) else []
    found += [mode for mode, key in _FLAGS.items() if config.get(f"pooling_mode_{key}") is True]
    if not found or any(mode not in POOLINGS for mode in found):
        raise DataError(
            f"{place}: its pooling is {shown(given) if given else 'none that is known'}",
            hint=f"allowed: {', '.join(POOLINGS)}",
        )
    return found


def _dense(place: Path) -> nn.Module:
    """A linear layer and what is applied to it."""
    from safetensors.torch import load_file

    config = _json(place / CONFIG)
    weights = place / "model.safetensors"
    if not weights.is_file():
        raise DataError(f"{place}: no model.safetensors", hint="save the encoder again")
    name = str(config.get("activation_function", "Identity")).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise DataError(
            f"{place}: the activation {shown(name)}", hint=f"allowed: {', '.join(_ACTIVATIONS)}"
        )
    with _reading(place):
        tensors = load_file(weights)
        matrix = tensors["linear.weight"].float()
        layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias="linear.bias" in tensors)
        layer.load_state_dict({k.removeprefix("linear."): v.float() for k, v in tensors.items()})
    return nn.Sequential(layer, _ACTIVATIONS[name]())


# -- reading ---------------------------------------------------------------------------------------


def _json(file: Path, kind: type = dict) -> Any:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file", hint=_HINT) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not readable as JSON: {error}", hint="is it whole?") from error
    if not isinstance(found, kind):
        raise DataError(f"{file} holds a {type(found).__name__}", hint=f"a JSON {kind.__name__}")
    return found


@contextlib.contextmanager
def _reading(place: Path) -> Iterator[None]:
    """Raise DataError for what the libraries say is wrong with a folder."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise DataError(
            f"{place}: it cannot be loaded: {shown(first_line(str(error)))}", hint=_HINT
        ) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("safetensors", "huggingface_hub"):
            raise
        raise DataError(
            f"{place}: it cannot be loaded: {shown(first_line(str(error)))}", hint=_HINT
        ) from error


def transformers_library() -> Any:
    """The package transformers. Raises MissingExtra."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", extra="text") from error
    return transformers


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' bars and its reports of weights that are missing."""
    transformers = transformers_library()
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
