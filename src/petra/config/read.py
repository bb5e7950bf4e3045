"""Reading a study's configuration: from a file, or from what Python gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from petra.config.records import SHORT, StudyConfig, in_full
from petra.core.errors import ConfigError, did_you_mean
from petra.core.text import printable, shown
from petra.core.yamlfile import read_yaml


def parse_config(data: Mapping[str, Any], *, where: str = "study") -> StudyConfig:
    """Validate; raises ConfigError with one line per fault: its path, what was got, what is
    allowed.
    """
    _check_plain(data, where)
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        lines = [_explain(dict(fault)) for fault in faults[:_MOST_FAULTS]]
        lines += [f"and {more} more"] if (more := len(faults) - len(lines)) else []
        raise ConfigError(f"{where}: " + "\n  ".join(lines)) from None


_MOST_FAULTS = 20


def _check_plain(data: object, where: str) -> None:
    """Refuse what could not be kept with the study, wherever it is: numbers that are none or too
    large, and data that is nested deeply, or holds itself.
    """
    level: list[tuple[str, object]] = [("", data)]
    for _ in range(50):
        inner: list[tuple[str, object]] = []
        for path, item in level:
            if isinstance(item, Mapping):
                inner.extend(
                    (f"{path}.{printable(key)[:80]}", value) for key, value in item.items()
                )
            elif isinstance(item, list | tuple):
                inner.extend((f"{path}[{i}]", value) for i, value in enumerate(item))
            elif (isinstance(item, float) and not math.isfinite(item)) or (
                isinstance(item, int) and abs(item) >= 2**63
            ):
                raise ConfigError(
                    f"{where}: {path[1:]}: got {shown(item)}",
                    hint="give a finite number of 64 bits",
                )
        if not inner:
            return
        if len(inner) > 100_000:
            break
        level = inner
    raise ConfigError(f"{where}: nested too deeply, or too much of it")


def load_config(path: Path, changes: Mapping[str, Any] | None = None) -> StudyConfig:
    """Read and validate a study file, with `changes` in place of what it says: of a section, those
    of its keys that are given.
    """
    return changed_config(read_yaml(path), changes, where=str(path))


def changed_config(
    data: Mapping[str, Any], changes: Mapping[str, Any] | None = None, *, where: str = "study"
) -> StudyConfig:
    """Validate what a study file would say, with `changes` as for `load_config`."""
    data = dict(data)
    for name, given in (changes or {}).items():
        section = in_full(name, data[name] if name in data else _default(name))
        if isinstance(given, Mapping) and isinstance(section, Mapping):
            given = {**section, **given}
        data[name] = given
    return parse_config(data, where=where)


def _default(name: str) -> object:
    """What a key of a study file stands for when it is not there, as it would be written."""
    if name not in StudyConfig.model_fields:
        return None
    default: object = StudyConfig.model_fields[name].get_default(call_default_factory=True)
    return default.model_dump() if isinstance(default, BaseModel) else default


def _explain(fault: Mapping[str, Any]) -> str:
    path = ".".join(printable(part)[:80] for part in fault["loc"]) or "the study"
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = _keys_at(fault["loc"][:-1])
        return f"{path}: unknown key; {did_you_mean(str(fault['loc'][-1]), allowed)}"
    got = fault.get("input")
    if wanted := _wanted(fault):
        return f"{path}: {wanted} (got {'nothing' if got is None else shown(got)})"
    message = str(fault["msg"]).removeprefix("Value error, ")
    plain = isinstance(got, str | int | float | bool | type(None)) and "got" not in message
    given = f" (got {shown(got)})" if plain else ""
    return f"{path}: {message[:1].lower()}{message[1:]}{given}"


def _wanted(fault: Mapping[str, Any]) -> str:
    """What is wanted instead of something of a wrong kind, in words of a study file; '' where it
    was no question of its kind.
    """
    match fault["type"]:
        case "model_type" | "model_attributes_type" | "dataclass_type" | "dataclass_exact_type":
            one = SHORT.get(str(fault["loc"][0])) if len(fault["loc"]) == 1 else None
            keys = ", ".join(_keys_at(fault["loc"]))
            return f"{f'a {one} or ' if one else ''}a mapping with any of {keys} is wanted"
        case "mapping_type" | "dict_type":
            return "a mapping of names to values is wanted"
        case "tuple_type" | "list_type":
            return "a list is wanted"
        case "string_type":
            return "a text is wanted"
    return ""


def _keys_at(path: tuple[Any, ...]) -> list[str]:
    """The keys allowed in the record at `path`."""
    record: type = StudyConfig
    for part in (p for p in path if not isinstance(p, int)):  # places in a list
        annotation = get_type_hints(record)[str(part)]
        options = [
            a
            for a in (annotation, *get_args(annotation))
            if isinstance(a, type) and (issubclass(a, BaseModel) or is_dataclass(a))
        ]
        record = options[0]
    return sorted(
        record.model_fields if issubclass(record, BaseModel) else signature(record).parameters
    )
