"""Files of modules: what was trained beside a model, small, without pickle, for the model that it
was trained on.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from petra.core.errors import ConfigError, did_you_mean
from petra.core.text import shown
from petra.methods.adapt.files.load import read_modules
from petra.methods.adapt.files.peft_format import peft_files
from petra.methods.adapt.files.save import module_files, write_files

FORMATS = {"petra": module_files, "peft": peft_files}


def save_modules(model: nn.Module, path: str | Path, *, format: str = "petra") -> Path:
    """Write the modules that were put beside the layers of `model`, and its trained head, into the
    directory `path`, all or nothing, and return it. A directory of modules that is there is
    replaced.

    ``modules.safetensors`` holds the tensors, ``modules.json`` says what they are and for which
    model: for `petra.load_modules`. The model's own frozen weights are not written; every weight
    of its own that requires a gradient is. Prefixes are stored as they are after training, without
    their reparameterisation. Cost: reads all weights once, for the digest of the model.

    With ``format="peft"`` the files are those of the library peft, ``adapter_config.json`` and
    ``adapter_model.safetensors``, which it loads by itself
    (``peft.PeftModel.from_pretrained(base, path)``), for what it has: LoRA, rsLoRA, DoRA, IA3,
    prefixes and prompts, one of them alone. peft's prefixes and prompts have the same tensors, but
    another meaning where positions count: it numbers tokens from behind them, and pools the
    prompt's first state where a model pools the first.

    Raises ConfigError where the model has no modules, for modules that the format does not have,
    for a `path` that holds other files, and where it cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(
            f"save_modules: unknown format {shown(format)}", hint=did_you_mean(str(format), FORMATS)
        )
    return write_files(Path(path), FORMATS[format](model))


def load_modules(base: nn.Module, path: str | Path, *, check_weights: bool = True) -> nn.Module:
    """A copy of `base` with the modules in the directory `path` around its layers, and with the
    trained head: bit for bit the model that was saved, in evaluation mode. `base` is not changed.
    Of the copy, what was trained may be trained further, and nothing else.

    `base` is the model that the modules were trained on: of the same structure and, unless
    `check_weights` is False, with the same weights. The files may be anybody's: nothing in them is
    unpickled or executed, kinds and settings are those that petra knows, tensors those that these
    have; no more of a file is read than that.

    Raises ArtifactError, naming the file and what is wrong with it, for files that are missing,
    damaged, forged or made for another model, and ConfigError where `base` holds modules already.
    """
    return read_modules(base, path, check_weights=check_weights)
