"""Copies of exported programs with members or JSON changed, and changes that would run code."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Edit = Callable[[dict[str, Any]], None]


def tampered(
    path: Path, *, replace: dict[str, bytes] | None = None, edit: Edit | None = None
) -> Path:
    """A copy with members replaced or added, or the program's JSON edited by a function."""
    out = path.with_name("tampered.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for item in source.namelist():
            content = source.read(item)
            if edit and item.endswith("models/model.json"):
                program = json.loads(content)
                edit(program)
                content = json.dumps(program).encode()
            for suffix, data in (replace or {}).items():
                if item.endswith(suffix):
                    content = data
            target.writestr(item, content)
        for suffix, data in (replace or {}).items():
            if not any(name.endswith(suffix) for name in source.namelist()):
                target.writestr(f"model{suffix}", data)
    return out


def weights_with(path: Path, **fields: object) -> bytes:
    """The table of weights with fields of its first entry, or of what is said of its tensor,
    replaced.
    """
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("weights_config.json"))
        table = json.loads(archive.read(name))
    entry = next(iter(table["config"].values()))
    for key, value in fields.items():
        (entry if key in entry else entry["tensor_meta"])[key] = value
    return json.dumps(table).encode()


def nodes(program: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = program["graph_module"]["graph"]["nodes"]
    return found


def signature(program: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = program["graph_module"]["module_call_graph"][0]["signature"]
    return found


def calls(target: str) -> Edit:
    def edit(program: dict[str, Any]) -> None:
        nodes(program)[0]["target"] = target

    return edit


def evil_expression(program: dict[str, Any]) -> None:
    sizes = program["graph_module"]["graph"]["tensor_values"]["a"]["sizes"]
    sizes[0]["as_expr"]["expr_str"] = "__import__('os').system('true')"


def evil_argument(program: dict[str, Any]) -> None:
    """An operator handed to another operator."""
    nodes(program)[0]["inputs"][0]["arg"] = {"as_operator": "_operator.attrgetter"}


def evil_input_name(program: dict[str, Any]) -> None:
    """Input names become parameters of a function whose source is executed."""
    signature(program)["forward_arg_names"] = ["a=__import__('os').system('true')", "b"]


def evil_key(program: dict[str, Any]) -> None:
    """So do keys of keyword arguments, inside quotes."""
    version, tree = json.loads(signature(program)["in_spec"])
    tree["children_spec"][1]["context"] = json.dumps(["a", "b':print('owned'),'c"])
    signature(program)["in_spec"] = json.dumps([version, tree])


def evil_weight_name(program: dict[str, Any]) -> None:
    """And paths of weights."""
    specs = program["graph_module"]["signature"]["input_specs"]
    next(s for s in specs if "parameter" in s)["parameter"]["parameter_name"] = 'w"); print("owned'


def imported_type(program: dict[str, Any]) -> None:
    """A tree specification that imports a module when it is read."""
    context = {
        "default_factory_module": "antigravity",
        "default_factory_name": "x",
        "dict_context": [],
    }
    tree = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    signature(program)["out_spec"] = json.dumps([1, tree])


def imported_constant(program: dict[str, Any]) -> None:
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:X", "name": "x"}])
    leaf = {"type": None, "context": None, "children_spec": []}
    tree = {"type": "builtins.dict", "context": context, "children_spec": [leaf]}
    signature(program)["out_spec"] = json.dumps([1, tree])
