"""Reference models trained on first use, and kept.

Training takes minutes, so its result is kept as safetensors in a file named after everything it
depends on; what the model is worth on the validation and test splits is kept in the same file.
Processes that need one at the same time each train it, come to the same weights, and the last one
stays: a file is seen whole or not at all.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from petra.core.errors import DataError
from petra.core.rng import derive_seed
from petra.core.text import first_line
from petra.runtimes.torch_eager import lacks_cuda
from petra.tasks.base import Augment, Task
from petra.tasks.data import Split
from petra.tasks.inputs import named
from petra.training.config import TrainConfig
from petra.training.loop import Progress, TrainResult, fit, predict_all
from petra.workloads.places import DEVICE, cache_folder, trained_on, training_device

THREADS = 1
"""Of training: what comes out depends on them, so they are the same on every machine; and where
another process keeps a core busy, two threads spend their time waiting for each other.
"""


@dataclass(frozen=True)
class Reference:
    """A reference model before it is trained: what it is, in words (`stem`), how its network is
    made, with initial weights drawn from `seed`, and how it is trained on the task.
    """

    stem: str
    build: Callable[[], nn.Module]
    task: Task
    training: TrainConfig
    seed: int = 0

    def initial(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, self.stem, "weights"))
            return self.build()

    def recipe(self, model: nn.Module) -> dict[str, object]:
        """All that weights and scores depend on but petra's training loop and library versions;
        `model` is the initial one.
        """
        return {
            "stem": self.stem,
            "seed": self.seed,
            "threads": THREADS,
            "training": asdict(self.training),
            "data": {name: data_digest(split) for name, split in self.task.splits()},
            "measured": [metric.name for metric in self.task.metrics()],
            "initial": short_digest(*map(_bytes, model.state_dict().values())),
            "code": code_digest(model),
            **trained_on(),
        }


def trained(
    reference: Reference, *, cache: str | Path | None = None, progress: Progress | None = None
) -> nn.Module:
    """The model, from the cache where it is there, else trained and kept.

    Progress is shown on standard error. Raises DataError when a kept file does not fit.
    """
    model = reference.initial()
    recipe = json.dumps(reference.recipe(model), sort_keys=True)
    name = f"{reference.stem}-{short_digest(recipe.encode())}.safetensors"
    path = (Path(cache) if cache else cache_folder()) / name
    if path.is_file():
        return load_weights(model, path)
    make_room(path)
    result = _fitted(model, reference, progress or show_progress(f"training {reference.stem}"))
    save_weights(model, path, {"recipe": recipe, **described(model, reference.task, result)})
    return model


def short_digest(*parts: bytes) -> str:
    """A short name of contents."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:12]


def data_digest(split: Split) -> str:
    """A short name of all inputs and targets of a split, whatever files and code they come from."""
    whole = hashlib.sha256()
    for inputs, targets in split.batches(1024):
        for name, tensor in {**named(inputs), "targets": targets}.items():
            whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + _bytes(tensor))
    return short_digest(whole.digest())


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def code_digest(model: nn.Module) -> str:
    """A short name of the source files of a model's modules, torch's own left out."""
    kinds = {type(module).__module__: type(module) for module in model.modules()}
    own = [kind for name, kind in sorted(kinds.items()) if not name.startswith("torch.")]
    return short_digest(*(Path(inspect.getfile(kind)).read_bytes() for kind in own))


def _fitted(model: nn.Module, reference: Reference, progress: Progress) -> TrainResult:
    seed = derive_seed(reference.seed, reference.stem, "training")
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return fit_here(model, reference.task, reference.training, seed=seed, progress=progress)
    finally:
        torch.set_num_threads(threads)


def fit_here(
    model: nn.Module,
    task: Task,
    training: TrainConfig,
    *,
    seed: int,
    augment: Augment | None = None,
    progress: Progress,
) -> TrainResult:
    """`fit` on the device for reference models, from which the model comes back. Raises DataError
    where there is no such device.
    """
    device = training_device()
    if device != "cpu" and (reason := lacks_cuda()):
        raise DataError(
            f"reference models cannot be trained on {device}: {reason}", hint=f"unset {DEVICE}"
        )
    result = fit(
        model, task, training, seed=seed, device=device, augment=augment, progress=progress
    )
    model.to("cpu")
    return result


def described(model: nn.Module, task: Task, result: TrainResult) -> dict[str, str]:
    """What is kept beside the weights: how training went, and all scores of both splits."""
    scores = {
        name: {key: m.as_dict() for key, m in task.scores(*predict_all(model, split)).items()}
        for name, split in (("val", task.val), ("test", task.test))
    }
    return {
        "metric": task.metrics()[0].name,
        "training": json.dumps(result.as_details()),
        "scores": json.dumps(scores),
    }


def make_room(path: Path) -> None:
    """Make the folder that weights are to be kept in. Raises DataError where nothing can be written
    there: before they are trained.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise DataError(
            f"{path.parent}: trained weights cannot be kept there",
            hint="PETRA_CACHE, or cache=, names a folder to write to",
        )


def save_weights(model: nn.Module, path: Path, facts: Mapping[str, str]) -> None:
    """Write the state dict into a folder that is there, all or nothing. Raises DataError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state: dict[str, Tensor] = {
        k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()
    }
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            temporary = Path(folder) / path.name
            save_file(state, temporary, metadata=dict(facts))
            temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: the trained weights cannot be kept: {error}",
            hint="is the disk full? PETRA_CACHE names another folder",
        ) from error


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Fill `model` from a safetensors state dict. Raises DataError when it does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise DataError(
            f"{path}: no such weights file", hint="pass weights=, a state dict in safetensors form"
        )
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DataError(
            f"{path}: not weights of this model: {first_line(str(error))}",
            hint="delete it to train again",
        ) from error
    return model.eval()


def show_progress(doing: str) -> Progress:
    """A line on standard error every twentieth of the way."""

    def show(done: int, total: int, note: str) -> None:
        if done == total or done % max(1, total // 20) == 0:
            print(f"{doing}: {done}/{total} steps, {note}", file=sys.stderr, flush=True)

    return show
