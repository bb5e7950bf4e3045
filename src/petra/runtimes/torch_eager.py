"""Eager PyTorch: a ``torch.export`` program in a ``.pt2`` file, reloaded without the model's Python class.

`torch.export.load` alone is not safe on a stranger's file: it unpickles odd tensors and sample inputs, evaluates
shape expressions, and looks operators up by dotted name. `refuse_code` checks an archive before it is opened.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from petra.core.errors import ArtifactError, ExportError
from petra.runtimes.base import Arrays, InputSpec, Runtime, Session

if TYPE_CHECKING:
    from torch import nn

    from petra.tasks.inputs import Inputs

_OPERATORS = re.compile(
    r"^(torch\.ops\.(aten|prims|quantized_decomposed|torchao|higher_order)\.[\w.]+|_operator\.\w+|math\.\w+"
    r"|torch\.sym_\w+)$"
)
_EXPRESSION_NAMES = frozenset(
    {"Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "FloorDiv", "CeilDiv"}
    | {"PythonMod", "CleanDiv", "ModularIndexing", "Identity", "And", "Or", "Not", "Eq", "Ne", "Le", "Lt", "Ge", "Gt"}
    | {"StrictLessThan", "StrictGreaterThan", "LessThan", "GreaterThan", "Equality", "Unequality"}
    | {"positive", "integer", "nonnegative", "real", "finite", "True", "False"}
    | {"int_oo", "IntInfinity", "NegativeIntInfinity"}
)
_EXPRESSION_TEXT = re.compile(r"^[\w\s,()='+*/-]*$")


def _strings(node: object, key: str) -> Iterator[str]:
    """All string values of `key` anywhere in parsed JSON."""
    if isinstance(node, Mapping):
        for k, v in node.items():
            if k == key and isinstance(v, str):
                yield v
            else:
                yield from _strings(v, key)
    elif isinstance(node, list):
        for item in node:
            yield from _strings(item, key)


def _check_expression(text: str, path: Path) -> None:
    bare = re.sub(r"'\w*'", "", text)
    words = set(re.findall(r"[A-Za-z_]\w*", bare))
    symbols = {w for w in words if re.fullmatch(r"[su]\d+", w)}
    if not _EXPRESSION_TEXT.match(text) or words - symbols - _EXPRESSION_NAMES:
        raise ArtifactError(f"{path}: suspicious shape expression {text[:80]!r}", hint="do not trust this file")


def refuse_code(path: Path) -> None:
    """Raise ArtifactError if loading `path` could run code: pickled payloads, compiled libraries, foreign operators.

    Accepts what `TorchEager.export` writes. Cost: reads the archive's JSON once.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if "/data/aotinductor/" in name or name.endswith((".so", ".py", ".pkl")):
                    raise ArtifactError(f"{path}: contains compiled or Python code ({name})", hint="do not trust it")
                if name.endswith("_config.json") and any(_pickled(json.loads(archive.read(name)))):
                    raise ArtifactError(f"{path}: contains pickled tensors", hint="export the model again with petra")
                if "/data/sample_inputs/" in name and archive.getinfo(name).file_size:
                    raise ArtifactError(f"{path}: contains sample inputs, a pickle", hint="export the model again")
                if "/models/" in name and name.endswith(".json"):
                    program = json.loads(archive.read(name))
                    for operator in _strings(program.get("graph_module", {}), "target"):
                        if not _OPERATORS.match(operator):
                            raise ArtifactError(f"{path}: calls {operator!r}", hint="only tensor operators are allowed")
                    for expression in _strings(program, "expr_str"):
                        _check_expression(expression, path)
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not a .pt2 archive ({error})", hint="export the model again") from error


def _pickled(config: object) -> Iterator[bool]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "use_pickle":
                yield bool(value)
            else:
                yield from _pickled(value)
    elif isinstance(config, list):
        for item in config:
            yield from _pickled(item)


class TorchSession(Session):
    """An exported program run by eager PyTorch."""

    def __init__(self, path: Path, *, threads: int) -> None:
        import torch

        if not path.is_file():
            raise ArtifactError(f"{path}: no such file", hint="give the path of an exported .pt2 file")
        refuse_code(path)
        torch.set_num_threads(threads)
        try:
            import torchao.quantization.pt2e  # noqa: F401  (registers the operators of quantized programs)

            program = torch.export.load(str(path))
        except (RuntimeError, ValueError, KeyError, AssertionError, TypeError) as error:
            raise ArtifactError(f"{path}: torch cannot load this program: {str(error).splitlines()[0]}") from error
        self._module = program.module(check_guards=False)
        self._keyed = bool(program.call_spec.in_spec.child(1).num_children)
        self._keys = _argument_names(program)
        self._specs = _argument_specs(program, self._keys)

    @property
    def input_names(self) -> tuple[str, ...]:
        return self._keys

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        return self._specs

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        import torch

        from petra.tasks.inputs import named_outputs

        missing = set(self._keys) - set(inputs)
        if missing:
            raise ArtifactError(f"the artifact wants inputs {sorted(self._keys)}, got {sorted(inputs)}")
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[k])) for k in self._keys]
        with torch.inference_mode():
            if self._keyed:
                value = self._module(**dict(zip(self._keys, tensors, strict=True)))
            else:
                value = self._module(*tensors)
        return {k: v.numpy() for k, v in named_outputs(value).items()}


def _argument_names(program: object) -> tuple[str, ...]:
    """Input names as `petra.tasks.inputs.named` gives them, from the program's calling convention."""
    spec = program.call_spec.in_spec  # type: ignore[attr-defined]
    args, kwargs = spec.child(0), spec.child(1)
    if kwargs.num_children:
        return tuple(kwargs.context)
    n = args.num_children
    return ("input",) if n == 1 else tuple(f"input_{i}" for i in range(n))


def _argument_specs(program: object, keys: tuple[str, ...]) -> tuple[InputSpec, ...]:
    wanted = program.graph_signature.user_inputs  # type: ignore[attr-defined]
    nodes = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}  # type: ignore[attr-defined]
    specs = []
    for key, name in zip(keys, wanted, strict=True):
        value = nodes[name].meta["val"]
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        specs.append(InputSpec(key, str(value.dtype).removeprefix("torch."), shape))
    return tuple(specs)


class TorchEager(Runtime):
    """PyTorch itself as the deployment runtime. Int8 graphs run here too, but simulated: slower, not faster."""

    name: ClassVar[str] = "torch"
    suffix: ClassVar[str] = ".pt2"

    def export(self, model: nn.Module, example: Inputs, path: Path) -> list[Path]:
        import torch

        from petra.tasks.inputs import named

        names = named(example)
        dynamic = {name: {0: torch.export.Dim.DYNAMIC} for name in names}
        args = tuple(names.values())
        keyed = isinstance(example, dict)
        try:
            program = torch.export.export(
                model,
                () if keyed else args,
                dict(names) if keyed else None,
                dynamic_shapes=dynamic if keyed else tuple(dynamic.values()),
            )
        except (RuntimeError, ValueError, TypeError) as error:
            first = str(error).strip().splitlines()[0]
            raise ExportError(f"torch.export cannot capture this model: {type(error).__name__}: {first}") from error
        program.example_inputs = None  # sample data has no place in a shipped file
        torch.export.save(program, str(path))
        return [path]

    def load(self, path: Path, *, threads: int) -> Session:
        return TorchSession(path, threads=threads)

    def version(self) -> str:
        return metadata.version("torch")
