"""Name -> object tables that import a plugin only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from petra.core.announced import Announced, Check, PluginError, announced, anything, loaded
from petra.core.errors import ConfigError, did_you_mean
from petra.core.text import shown

T = TypeVar("T")


class Registry(Generic[T]):
    """A folder's table of plugins: each name maps to ``"module:attribute"``, or to an object
    registered at run time.

    With a `group`, what installed packages announce there counts too, once it is asked for by name:
    a package that is installed changes nothing for those who do not name what it brings. `check`
    says what is wrong with an object of theirs. A name of petra's own, and one registered at run
    time, is never a package's.

    >>> Registry("shape", {"square": "shapes.square:Square"}, group="petra.shapes")
    """

    def __init__(
        self,
        noun: str,
        table: Mapping[str, str] | Mapping[str, T],
        *,
        group: str = "",
        check: Check = anything,
    ) -> None:
        self.noun = noun
        self.group = group
        self._check = check
        self._table: dict[str, str | T] = {**table}
        self._added: dict[str, T] = {}
        self._brought: set[str] = set()  # what was asked for of packages

    def register(self, name: str, item: T) -> T:
        """Add a third party's plugin. Refuses a name that is taken."""
        if name in self._table:
            raise ConfigError(f"{self.noun} {name!r} is already registered")
        self._table[name] = self._added[name] = item
        return item

    def forget(self, *names: str) -> None:
        """Take back what was registered at run time."""
        for name in names:
            self._brought.discard(name)
            if self._added.pop(name, None) is not None:
                del self._table[name]

    def added(self) -> dict[str, T]:
        """What was registered at run time or loaded of a package, for handing on to another
        process.
        """
        return dict(self._added)

    def names(self) -> tuple[str, ...]:
        """Petra's own, those registered, and those of packages that were asked for."""
        return tuple(sorted(self._table))

    def items(self) -> list[tuple[str, T]]:
        """Names and plugins, in the order of the table, then of registration."""
        return [(name, self.get(name)) for name in self._table]

    def __contains__(self, name: object) -> bool:
        return name in self._table or any(one.name == name for one in self.announced())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._table, *(one.name for one in self.announced())}))

    def get(self, name: str) -> T:
        """The plugin called `name`, imported now if need be.

        Unknown names raise ConfigError with a suggestion; those of a package that cannot be used
        PluginError.
        """
        if name not in self._table:
            return self._of_a_package(name)
        entry = self._table[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = cast(T, getattr(importlib.import_module(module), attribute))
            self._table[name] = entry
        return entry

    def all(self) -> tuple[T, ...]:
        """Every plugin by name, all imported now."""
        return tuple(map(self.get, self.names()))

    # ---- packages --------------------------------------------------------------------------------

    def announced(self) -> tuple[Announced, ...]:
        """What installed packages announce, but under names that are taken."""
        return tuple(one for one in self._every() if not self._taken(one.name))

    def refused(self) -> tuple[Announced, ...]:
        """What installed packages announce under names that are taken: it is left out."""
        return tuple(one for one in self._every() if self._taken(one.name))

    def package(self, name: str) -> str:
        """The package and version that brings a plugin, '' of any that no package brings."""
        return next((one.source for one in self.announced() if one.name == name), "")

    def offered(self) -> list[tuple[Announced, T | PluginError]]:
        """All that `announced` has, imported now, or why it cannot be used. Nothing of it comes
        into use by that.
        """
        found: list[tuple[Announced, T | PluginError]] = []
        for one in self.announced():
            try:
                found.append((one, cast(T, self._load(one))))
            except PluginError as error:
                found.append((one, error))
        return found

    def _every(self) -> tuple[Announced, ...]:
        return announced(self.group) if self.group else ()

    def _taken(self, name: str) -> bool:
        return name in self._table and name not in self._brought

    def _of_a_package(self, name: str) -> T:
        by = [one for one in self.announced() if one.name == name]
        if not by:
            close = did_you_mean(name, self)
            more = "; or install the package that brings it" if self.group else ""
            raise ConfigError(f"unknown {self.noun} {shown(name)}", hint=close + more)
        item = cast(T, self._load(by[0]))
        self._table[name] = self._added[name] = item
        self._brought.add(name)
        return item

    def _load(self, one: Announced) -> object:
        others = [o.source for o in self.announced() if o.name == one.name]
        if len(others) > 1:
            raise PluginError(
                f"the {self.noun} {one.name!r} is announced by {' and by '.join(others)}",
                hint="remove all of these packages but one",
            )
        return loaded(one, self.noun, self._check)
