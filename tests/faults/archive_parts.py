"""Real archives to attack, as lists of members, and what an attack puts into them: code that leaves
a file behind."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.layers.quantized import Codes, DynamicQuantizedLinear
from petra.runtimes.torch_eager import TorchEager
from petra.tasks.inputs import Inputs

PROGRAM, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS, CONSTANTS = (
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)


@dataclass(frozen=True)
class Archive:
    """Members in the order in which they are written, by their names below the root; names may
    repeat."""

    members: tuple[tuple[str, bytes], ...]
    root: str = "model/"
    method: int = zipfile.ZIP_STORED
    edit: Callable[[bytes], bytes] = field(default=lambda content: content)

    def get(self, name: str) -> bytes:
        return next(content for found, content in self.members if found == name)

    def with_member(self, name: str, content: bytes, *, first: bool = False) -> Archive:
        """Added beside what there is, even of the same name."""
        new = ((name, content),)
        return replace(self, members=new + self.members if first else self.members + new)

    def changed(self, name: str, change: Callable[[bytes], bytes]) -> Archive:
        """With the content of member `name` changed."""
        return replace(
            self, members=tuple((n, change(c) if n == name else c) for n, c in self.members)
        )

    def edited(self, name: str, edit: Callable[[Any], object]) -> Archive:
        """With the JSON of member `name` changed in place by `edit`."""

        def change(content: bytes) -> bytes:
            value = json.loads(content)
            edit(value)
            return json.dumps(value).encode()

        return self.changed(name, change)

    def program(self, edit: Callable[[Any], object]) -> Archive:
        return self.edited(PROGRAM, edit)

    def renamed(self, rename: Callable[[str], str]) -> Archive:
        return replace(
            self, members=tuple((rename(name), content) for name, content in self.members)
        )

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", self.method) as target, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that repeat
            for name, content in self.members:
                # Of no date, so that attacks can be repeated.
                info = zipfile.ZipInfo(self.root + name)
                info.compress_type = self.method
                target.writestr(info, content)
        return self.edit(buffer.getvalue())

    @staticmethod
    def read(path: Path) -> Archive:
        with zipfile.ZipFile(path) as source:
            names = source.namelist()
            return Archive(tuple((name.partition("/")[2], source.read(name)) for name in names))


# -- canaries --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Canary:
    """A file that exists once somebody's code has run."""

    path: Path

    @property
    def code(self) -> str:
        """A Python expression without quotes or dots, at which texts of an archive end or are
        parted."""
        name = "+".join(f"chr({ord(letter)})" for letter in str(self.path))
        return f"open({name},chr(119))"

    @property
    def pickle(self) -> bytes:
        return pickle.dumps(_Runs(self.code))

    @property
    def torch_pickle(self) -> bytes:
        buffer = io.BytesIO()
        torch.save({"x": _Runs(self.code)}, buffer)
        return buffer.getvalue()


class _Runs:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


# -- archives --------------------------------------------------------------------------------------


class _Net(nn.Module):
    """A convolution, a batch norm, a constant, a size in a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.shift, self.linear = torch.full((4, 1, 1), 0.5), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.conv(x))) + self.shift
        pooled = nn.functional.adaptive_avg_pool2d(hidden, 2).reshape(x.shape[0] * 4, 4)
        return self.linear(pooled.view(-1, 16))


class _Named(nn.Module):
    """Inputs by name, outputs by name, a part without gradients (a graph within the graph)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.linear = nn.Embedding(8, 4), nn.Linear(4, 2)

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            hidden = self.embed(tokens) * mask.unsqueeze(-1)
        return {"logits": self.linear(hidden.sum(1)), "hidden": hidden}


def _quantized() -> nn.Module:
    codes = torch.randint(-64, 65, (8, 4), dtype=torch.int8)
    layer = DynamicQuantizedLinear(
        Codes(nn.Parameter(codes, requires_grad=False), torch.full((8, 1), 0.01)), None
    )
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 2))


def real_archives(scratch: Path) -> dict[str, Archive]:
    """What petra exports of three small models; the files are left in `scratch`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        named = {"tokens": torch.ones(2, 5, dtype=torch.int64), "mask": torch.ones(2, 5)}
        models: dict[str, tuple[nn.Module, Inputs]] = {
            "float": (_Net(), torch.randn(2, 1, 8, 8)),
            "named": (_Named(), named),
            "quantized": (_quantized(), torch.randn(2, 4)),
        }
    found = {}
    for name, (model, example) in models.items():
        path = scratch / f"{name}.pt2"
        TorchEager().export(model.eval(), example, path)
        found[name] = Archive.read(path)
    return found


# -- ways into an archive --------------------------------------------------------------------------


def nodes(program: Any) -> list[Any]:
    found: list[Any] = program["graph_module"]["graph"]["nodes"]
    return found


def signature(program: Any) -> dict[str, Any]:
    found: dict[str, Any] = program["graph_module"]["module_call_graph"][0]["signature"]
    return found


def first_size(program: Any) -> dict[str, Any]:
    """The first shape expression of the program."""
    metas = program["graph_module"]["graph"]["tensor_values"].values()
    found: dict[str, Any] = next(s["as_expr"] for m in metas for s in m["sizes"] if "as_expr" in s)
    return found


def renamed_text(old: str, new: str) -> Callable[[bytes], bytes]:
    """Replaces a JSON string wherever it stands."""
    return lambda content: content.replace(json.dumps(old).encode(), json.dumps(new).encode())


def central_names(content: bytes, rename: Callable[[bytes], bytes]) -> bytes:
    """Names in the central directory changed to others of the same length, those in local headers
    kept."""
    out, at = bytearray(content), content.find(b"PK\x01\x02")
    while at >= 0:
        (length,) = struct.unpack_from("<H", content, at + 28)
        name = rename(content[at + 46 : at + 46 + length])
        if len(name) == length:
            out[at + 46 : at + 46 + length] = name
        at = content.find(b"PK\x01\x02", at + 46)
    return bytes(out)


# -- attacks ---------------------------------------------------------------------------------------

Attack = Callable[[Archive, Canary], Archive]


def kept_in(attacks: dict[str, Attack]) -> Callable[[Attack], Attack]:
    """A decorator that keeps an attack under its name in plain words."""

    def keep(attack: Attack) -> Attack:
        attacks[attack.__name__.replace("_", " ")] = attack
        return attack

    return keep


def pickled_samples(archive: Archive, canary: Canary) -> Archive:
    return archive.changed(SAMPLES, lambda _: canary.torch_pickle)
