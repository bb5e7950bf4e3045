"""Whether a ``.pt2`` archive can be opened without running code from it.

`torch.export.load` alone is not safe on a stranger's file. It unpickles odd tensors and sample inputs, evaluates shape
expressions, imports modules named in tree specifications, looks operators up by dotted name, and its graphs become
Python source with the file's names pasted in. `refuse_code` reads an archive first and lets only what
`petra.runtimes.torch_program.export_program` writes pass: tensor operators, plain names, raw tensors.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from petra.core.errors import ArtifactError

_SYMBOLIC = "add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|lshift|rshift"
_HIGHER_ORDER = "cond|scan|while_loop|map_impl|associative_scan|wrap_with_set_grad_enabled|wrap_with_autocast"
# aten has operators that read and write files; double underscores lead from an operator to the rest of Python.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchao|petra)\."
    r"((?!__|from_file|save|load)\w+|__(and|or|xor|lshift|rshift)__)\.(?!__)\w+"
    rf"|torch\.ops\.higher_order\.({_HIGHER_ORDER})"
    rf"|_operator\.({_SYMBOLIC})|math\.(trunc|ceil|floor|sqrt)|torch\.sym_\w+"
)
_EXPRESSION_NAMES = frozenset(
    {"Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "FloorDiv", "CeilDiv"}
    | {"PythonMod", "CleanDiv", "ModularIndexing", "Identity", "And", "Or", "Not", "Eq", "Ne", "Le", "Lt", "Ge", "Gt"}
    | {"StrictLessThan", "StrictGreaterThan", "LessThan", "GreaterThan", "Equality", "Unequality"}
    | {"positive", "integer", "nonnegative", "real", "finite", "True", "False"}
    | {"int_oo", "IntInfinity", "NegativeIntInfinity"}
)
_EXPRESSION_TEXT = re.compile(r"[\w\s,()='+*/-]*")
_NAME = re.compile(r"[\w.+-]*")  # of values, weights, arguments, versions: nothing that could end a Python string
_TEXT = re.compile(r"[\w .,:>+-]*")  # string arguments of operators, such as an einsum's equation
_TREE_TYPES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_EXPORT_AGAIN = "only archives that petra exported are opened; export the model again"


def refuse_code(path: Path) -> None:
    """Raise ArtifactError if loading `path` could run code: pickles, compiled libraries, foreign operators or names.

    Accepts what petra exports. Cost: reads the archive's JSON once.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if "/data/aotinductor/" in name or name.endswith((".so", ".py", ".pkl")):
                    raise ArtifactError(f"{path}: contains compiled or Python code ({name})", hint="do not trust it")
                if "/data/sample_inputs/" in name and archive.getinfo(name).file_size:
                    raise ArtifactError(f"{path}: contains sample inputs, a pickle", hint=_EXPORT_AGAIN)
                if name.endswith("_config.json"):
                    _check_payload(json.loads(archive.read(name)), path)
                if "/models/" in name and name.endswith(".json"):
                    _check_program(json.loads(archive.read(name)), path)
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not a .pt2 archive ({error})", hint="export the model again") from error


def _check_payload(config: object, path: Path) -> None:
    """The table of weights or constants: raw tensors only, under plain names."""
    if any(_pickled(config)):
        raise ArtifactError(f"{path}: contains pickled tensors", hint=_EXPORT_AGAIN)
    for _, text in _strings(config):
        _check_name(text, path)


def _check_program(program: object, path: Path) -> None:
    """Every string of the program, by the key it stands under."""
    checks: Mapping[str, Callable[[str, Path], None]] = {
        "target": _check_operator,
        "as_operator": _check_operator,
        "expr_str": _check_expression,
        "in_spec": _check_tree,
        "out_spec": _check_tree,
        "as_string": _check_text,
        "as_strings": _check_text,
    }
    for key, text in _strings(program):
        checks.get(key, _check_name)(text, path)


def _strings(node: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in parsed JSON with the key it stands under; the keys of a mapping stand under ''."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield "", name
            yield from _strings(value, name)
    elif isinstance(node, list):
        for item in node:
            yield from _strings(item, key)


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


def _check_operator(text: str, path: Path) -> None:
    if not _OPERATOR.fullmatch(text):
        raise ArtifactError(f"{path}: calls {text[:80]!r}", hint="only tensor operators are allowed")


def _check_expression(text: str, path: Path) -> None:
    bare = re.sub(r"'\w*'", "", text)
    words = set(re.findall(r"[A-Za-z_]\w*", bare))
    symbols = {w for w in words if re.fullmatch(r"[su]\d+", w)}
    if not _EXPRESSION_TEXT.fullmatch(text) or words - symbols - _EXPRESSION_NAMES:
        raise ArtifactError(f"{path}: suspicious shape expression {text[:80]!r}", hint="do not trust this file")


def _check_tree(text: str, path: Path) -> None:
    """A tree specification of inputs or outputs: tuples, lists and dicts with plain keys, nothing to import."""
    if text:
        _, root = json.loads(text)
        _check_branch(root, path)


def _check_branch(branch: Mapping[str, object], path: Path) -> None:
    context, children = branch["context"], branch["children_spec"]
    keys = json.loads(context) if isinstance(context, str) else context
    if branch["type"] not in _TREE_TYPES or not isinstance(children, list):
        raise ArtifactError(f"{path}: inputs or outputs are a {branch['type']!r}", hint=_EXPORT_AGAIN)
    if keys is not None and not (isinstance(keys, list) and all(isinstance(k, str) for k in keys)):
        raise ArtifactError(f"{path}: suspicious input or output names {str(keys)[:80]}", hint="do not trust this file")
    for key in keys or ():
        _check_name(key, path)
    for child in children:
        _check_branch(child, path)


def _check_text(text: str, path: Path) -> None:
    if not _TEXT.fullmatch(text):
        raise ArtifactError(f"{path}: suspicious text {text[:80]!r}", hint=_EXPORT_AGAIN)


def _check_name(text: str, path: Path) -> None:
    if not _NAME.fullmatch(text):
        raise ArtifactError(f"{path}: suspicious name {text[:80]!r}", hint=_EXPORT_AGAIN)
