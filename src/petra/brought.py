"""What a study uses that other packages have brought: noted with it, so that whoever goes on with
it elsewhere is told which of them are missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from petra.callbacks.table import CALLBACKS
from petra.config import StudyConfig
from petra.core.announced import BROUGHT_NOTE, missing_error
from petra.core.errors import StoreError
from petra.core.metric import METRICS
from petra.core.pipeline import Pipeline
from petra.core.registry import Registry
from petra.execute.table import EXECUTORS
from petra.methods.table import STAGES
from petra.problem import search_options
from petra.runtimes.table import RUNTIMES
from petra.search.table import SEARCHERS
from petra.store.store import Store

_REGISTRIES: tuple[Registry[Any], ...] = (
    STAGES, RUNTIMES, SEARCHERS, METRICS, EXECUTORS, CALLBACKS,
)  # fmt: skip


def registries() -> tuple[Registry[Any], ...]:
    """All tables that packages can add to."""
    return _REGISTRIES


def brought(config: StudyConfig) -> dict[str, str]:
    """What a checked configuration names of installed packages: "stage acme.halve" -> the package
    and its version.
    """
    found = {}
    for registry, name in _named(config):
        if package := registry.package(name):
            found[f"{registry.noun} {name}"] = package
    return found


def _named(config: StudyConfig) -> Iterator[tuple[Registry[Any], str]]:
    yield RUNTIMES, config.target.runtime
    yield SEARCHERS, search_options(config)[0]
    yield EXECUTORS, config.executor
    yield from ((METRICS, name) for name in config.metrics_named())
    yield from ((CALLBACKS, one.name) for one in config.callbacks)
    yield from ((STAGES, name) for name in config.space.stages or ())
    for stages in config.space.initial:
        yield from ((STAGES, stage.kind) for stage in Pipeline.from_list(list(stages)))


def note_brought(store: Store, config: StudyConfig) -> None:
    """Keep with a study, open for writing, what its configuration uses of packages."""
    used = brought(config)
    if used or store.note(BROUGHT_NOTE):
        store.set_note(BROUGHT_NOTE, used)


def check_brought(directory: Path) -> None:
    """Raise PluginError, naming the packages, where what the study in `directory` uses of them is
    not there; nothing where there is no study.
    """
    note = None
    with contextlib.suppress(StoreError):  # whoever opens the study in earnest says it
        if Store.exists(directory):
            with Store.open(directory, write=False, whole=False) as store:
                note = store.note(BROUGHT_NOTE)
    known = {registry.noun: registry for registry in _REGISTRIES}
    missing = []
    for key, package in note.items() if isinstance(note, dict) else ():
        noun, _, name = str(key).partition(" ")
        if noun in known and name not in known[noun]:
            missing.append((str(key), str(package)))
    if missing:
        raise missing_error(directory, missing)
