"""Name -> object tables that import a plugin only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from petra.core.errors import ConfigError, did_you_mean
from petra.core.text import shown

T = TypeVar("T")


class Registry(Generic[T]):
    """A folder's table of plugins: each name maps to ``"module:attribute"``, or to an object
    registered at run time.

    >>> Registry("shape", {"square": "shapes.square:Square"})
    """

    def __init__(self, noun: str, table: Mapping[str, str] | Mapping[str, T]) -> None:
        self.noun = noun
        self._table: dict[str, str | T] = {**table}
        self._added: dict[str, T] = {}

    def register(self, name: str, item: T) -> T:
        """Add a third party's plugin. Refuses a name that is taken."""
        if name in self._table:
            raise ConfigError(f"{self.noun} {name!r} is already registered")
        self._table[name] = self._added[name] = item
        return item

    def forget(self, *names: str) -> None:
        """Take back what was registered at run time."""
        for name in names:
            if self._added.pop(name, None) is not None:
                del self._table[name]

    def added(self) -> dict[str, T]:
        """What was registered at run time, for handing on to another process."""
        return dict(self._added)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._table))

    def items(self) -> list[tuple[str, T]]:
        """Names and plugins, in the order of the table, then of registration."""
        return [(name, self.get(name)) for name in self._table]

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> T:
        """The plugin called `name`, imported now if need be.

        Unknown names raise ConfigError with a suggestion.
        """
        if name not in self._table:
            raise ConfigError(
                f"unknown {self.noun} {shown(name)}", hint=did_you_mean(name, self._table)
            )
        entry = self._table[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = cast(T, getattr(importlib.import_module(module), attribute))
            self._table[name] = entry
        return entry

    def all(self) -> tuple[T, ...]:
        """Every plugin by name, all imported now."""
        return tuple(map(self.get, self.names()))
