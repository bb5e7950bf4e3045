"""YAML as study files use it: mappings, lists, texts, numbers, true and false, nothing else."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from petra.core.errors import ConfigError
from petra.core.text import shown

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 40
_MAX_NODES = 20_000  # with what aliases repeat
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map", "merge", "value")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises ConfigError, with the line where there is one, for a file that is missing, no text, not
    YAML, larger than 1 MiB, nested deeper than 40, that repeats a key, names a type of its own or
    holds a number that is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint="give the path of a study file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_BYTES} bytes", hint="this is no study file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}", hint="save it as UTF-8") from None
    return parse_yaml(text, where=str(path))


def parse_yaml(text: str, *, where: str) -> dict[str, Any]:
    """`read_yaml` of a text; `where` begins every message."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _count(node, where)
        data = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply", hint=_DEPTH_HINT) from None
    if data is None:
        raise ConfigError(f"{where}: is empty", hint=_MAPPING_HINT)
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: got {_KINDS.get(type(data), 'this')}", hint=_MAPPING_HINT)
    return data


_MAPPING_HINT = "a study file is a mapping of keys to values, for example: workload: digits"
_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}
_DEPTH_HINT = f"at most {_MAX_DEPTH} levels are allowed"


class _Loader(yaml.SafeLoader):
    """Safe, and with the fewest types: a date is text, and what is none is said with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=True)
        except (
            ValueError,
            OverflowError,
            KeyError,
            IndexError,
            AttributeError,
            TypeError,
        ) as error:
            kind = node.tag.rpartition(":")[2]
            given = shown(node.value) if isinstance(node, yaml.ScalarNode) else "this"
            raise yaml.constructor.ConstructorError(
                None, None, f"{given} is no {kind} ({error})", node.start_mark
            ) from None
        if isinstance(value, int) and abs(value) >= 2**63:
            raise yaml.constructor.ConstructorError(
                None, None, "an integer of more than 64 bits", node.start_mark
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key)} is no text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key)} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=True)


# Nothing is taken for a date, and no tag makes anything but plain values.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN
}


def _count(root: yaml.Node, where: str) -> None:
    """Refuse a document that is too deep, or too large once its aliases are written out."""
    level, total = [root], 0
    for _ in range(_MAX_DEPTH):
        total += len(level)
        if total > _MAX_NODES:
            raise ConfigError(
                f"{where}: more than {_MAX_NODES} values", hint="this is no study file"
            )
        inner: list[yaml.Node] = []
        for node in level:
            if isinstance(node, yaml.MappingNode):
                inner.extend(part for pair in node.value for part in pair)
            elif isinstance(node, yaml.SequenceNode):
                inner.extend(node.value)
            if len(inner) > _MAX_NODES:
                break
        if not inner:
            return
        level = inner
    raise ConfigError(f"{where}: nested too deeply", hint=_DEPTH_HINT)
