"""What installed packages bring, for `petra methods` and `petra doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from petra.core.text import printable

if TYPE_CHECKING:
    from petra.core.announced import Announced
    from petra.core.registry import Registry
    from petra.methods.base import Stage


def brought_here() -> list[dict[str, str]]:
    """Everything that installed packages announce, of every kind: loaded now, with what is wrong
    where it cannot be used.
    """
    from petra.brought import registries

    return [row for registry in registries() for row in rows(registry)]


def rows(registry: Registry[Any]) -> list[dict[str, str]]:
    """The same of one kind."""
    from petra.core.announced import PluginError

    offered = [
        _row(registry, one, found.message if isinstance(found, PluginError) else "")
        for one, found in registry.offered()
    ]
    taken = f"another {registry.noun} has this name"
    return offered + [_row(registry, one, taken) for one in registry.refused()]


def stages_here() -> dict[str, type[Stage]]:
    """Petra's stages by name, then those of packages that can be used."""
    from petra.core.announced import PluginError
    from petra.methods.table import STAGES

    offered = {o.name: found for o, found in STAGES.offered() if not isinstance(found, PluginError)}
    return {name: STAGES.get(name) for name in STAGES.names()} | offered


def package_of(stage: str) -> str:
    """The package and version that brings a stage, 'petra' of its own."""
    from petra.methods.table import STAGES

    return STAGES.package(stage) or "petra"


def lines(found: list[dict[str, str]]) -> list[str]:
    """A line for each."""
    said = []
    for row in found:
        what = f"plugin   {row['kind']} {row['name']} of {row['package']}"
        said.append(f"{what}: left out: {row['wrong']}" if row["wrong"] else what)
    return said


def _row(registry: Registry[Any], one: Announced, wrong: str) -> dict[str, str]:
    name = printable(one.name)
    return {"kind": registry.noun, "name": name, "package": one.source, "wrong": wrong}
