"""What `petra run` is asked for: a study file, or a workload by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petra.core.errors import ConfigError, did_you_mean
from petra.core.text import shown

if TYPE_CHECKING:
    from petra.config import StudyConfig

WHERE = "petra run"


def asked_for(
    study: Path | None,
    workload: str | None,
    arguments: Sequence[str] | None,
    changes: Mapping[str, Any] | None,
) -> StudyConfig:
    """The configuration of a study file, or of a workload with its `arguments`, with `changes` in
    place of what it says. Raises ConfigError unless there is exactly one of them.
    """
    from petra.config import changed_config, load_config

    if study is not None:
        if workload is not None or arguments:
            raise ConfigError(
                f"{WHERE}: {study}, and a workload besides",
                hint="give either a study file, which may name a workload, or --workload NAME",
            )
        return load_config(study, changes)
    if workload is None:
        raise ConfigError(
            f"{WHERE}: neither a study file nor a workload is given",
            hint="for example: petra run study.yaml, or petra run --workload digits",
        )
    _check_known(workload)
    data = {
        "workload": {"name": workload, "args": _arguments(arguments or ())},
        "workdir": f"runs/{workload.replace('/', '-')}",
    }
    return changed_config(data, changes, where=WHERE)


def _check_known(workload: str) -> None:
    from petra.workloads.table import WORKLOADS

    if workload not in WORKLOADS:
        raise ConfigError(
            f"{WHERE}: unknown workload {shown(workload)}",
            hint=did_you_mean(workload, WORKLOADS.names()),
        )


def _arguments(texts: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in map(_argument, texts):
        if name in found:
            raise ConfigError(f"--workload-arg {name}: given twice", hint="give one of them")
        found[name] = value
    return found


def _argument(text: str) -> tuple[str, Any]:
    """The name and the value, which is read as in a study file."""
    from petra.core.yamlfile import parse_yaml

    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise ConfigError(
            f"--workload-arg: got {shown(text)}", hint="write key=value, for example name=GunPoint"
        )
    return name, parse_yaml(f"value: {value}", where=f"--workload-arg {name}")["value"]
