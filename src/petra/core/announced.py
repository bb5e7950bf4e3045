"""What installed packages announce by entry points, found without importing any of it.

A package's metadata says, under a group such as ``petra.stages``, a name and where the object is:
``"acme.halve" = "acme_petra.halve:Halve"``. The module is imported when the name is asked for, or
when all there is gets listed. Only packages that are installed count: what lies beside a study file
is none, even where modules are imported from there.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from petra.core.errors import PetraError
from petra.core.text import first_line, printable

BROUGHT_NOTE = "plugins"  # the note with what a study uses of other packages, and which these are
_not_installed: set[str] = set()

Check = Callable[[str, object], str]
"""What is wrong with the object that is announced under a name; '' when nothing is."""


class PluginError(PetraError):
    """A plugin of an installed package cannot be used, or is not there; the message names the
    package.
    """


@dataclass(frozen=True)
class Announced:
    """One entry point: ``module:attribute`` under a name, by a package of a version."""

    name: str
    value: str
    package: str
    version: str

    @property
    def source(self) -> str:
        """The package and its version, as pip has them: 'acme-petra 1.2'."""
        return printable(f"{self.package} {self.version}".strip())


def not_installed(directories: Iterable[str]) -> None:
    """Look for no packages in these directories, although modules may be imported from there."""
    _not_installed.update(directories)


def announced(group: str) -> tuple[Announced, ...]:
    """All that installed packages announce in a group, by name, then package. Imports nothing.

    Cost: some 10 ms for a hundred packages, the first time.
    """
    return _found(group, tuple(entry for entry in sys.path if entry not in _not_installed))


@lru_cache(maxsize=64)
def _found(group: str, places: tuple[str, ...]) -> tuple[Announced, ...]:
    found: dict[str, list[Announced]] = {}
    for package in metadata.distributions(path=list(places)):
        with contextlib.suppress(Exception):  # metadata that nobody can read announce nothing
            entries = package.entry_points.select(group=group)
            if entries:  # the rest of the metadata takes ten times as long to read
                name, version = package.metadata["Name"], package.version
                # Of two that are installed under one name, the first is imported.
                found.setdefault(name, [Announced(e.name, e.value, name, version) for e in entries])
    every = (one for by_package in found.values() for one in by_package)
    return tuple(sorted(every, key=lambda one: (one.name, one.package)))


def loaded(one: Announced, noun: str, check: Check) -> object:
    """The object of an entry point, imported now. Raises PluginError, whatever goes wrong in it."""
    module, _, attribute = one.value.partition("[")[0].partition(":")
    try:
        found: object = importlib.import_module(module.strip())
        for part in attribute.strip().split(".") if attribute else ():
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # code of others
        said = printable(f"{type(error).__name__}: {first_line(str(error))}")[:500]
        raise PluginError(
            f"the {noun} {one.name!r} of the package {one.source} cannot be loaded: {said}",
            hint=f"repair or remove the package: pip uninstall {one.package}",
        ) from error
    if wrong := check(one.name, found):
        raise PluginError(
            f"the {noun} {one.name!r} of the package {one.source} is none: {wrong}",
            hint=f"tell its author, or remove it: pip uninstall {one.package}",
        )
    return found


def missing_error(directory: Path, missing: Sequence[tuple[str, str]]) -> PluginError:
    """The error of a study that uses what is not there: pairs such as "metric zipped_bytes" and
    "acme-petra 1.2", as the note has them.
    """
    uses = [f"the {printable(key)} of the package {printable(of)}" for key, of in missing]
    packages = sorted({printable(of).partition(" ")[0] for _, of in missing})
    return PluginError(
        f"{directory}: this study uses {', '.join(uses)}, which is not installed here",
        hint=f"install it first: pip install {' '.join(packages)}",
    )


def subclass_of(home: str, *, named: bool = True) -> Check:
    """Holds an object to be a class derived from the one at ``module:Class``, which is imported by
    then, with all that it has to have, whose `name` is the announced one where it has such.
    """

    def wrong(name: str, item: object) -> str:
        module, _, attribute = home.partition(":")
        base: type = getattr(importlib.import_module(module), attribute)
        if not isinstance(item, type) or not issubclass(item, base):
            return f"{_of(item)} is no subclass of {base.__name__}"
        if inspect.isabstract(item):
            lacks: frozenset[str] = getattr(item, "__abstractmethods__", frozenset())
            return f"{_of(item)} lacks {', '.join(sorted(lacks))}"
        own: object = getattr(item, "name", None)
        if named and own != name:
            return f"{_of(item)} has the name {own!r}"
        return ""

    return wrong


def instance_of(kind: type) -> Check:
    """Holds an object to be a record of this kind, whose `name` is the announced one."""

    def wrong(name: str, item: object) -> str:
        if not isinstance(item, kind):
            return f"{_of(item)} is no {kind.__name__}"
        own: object = getattr(item, "name", None)
        return "" if own == name else f"it has the name {own!r}"

    return wrong


def callable_item(name: str, item: object) -> str:
    """Holds an object to be a function or a class."""
    return "" if callable(item) else f"{_of(item)} cannot be called"


def anything(name: str, item: object) -> str:
    """Nothing is wrong."""
    return ""


def _of(item: object) -> str:
    named = item.__qualname__ if isinstance(item, type) else type(item).__name__
    return printable(named)[:100]
