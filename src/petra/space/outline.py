"""What a stage's declaration may depend on: the untouched model as plain data, without torch.

`petra.model.outline.outline_of` makes one of a model. It depends on the model's structure alone, so
that every process that holds the model makes the same one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

ROLES = ("convolution", "linear", "embedding", "recurrent", "attention", "batch norm")
_CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict"})


@dataclass(frozen=True)
class ModuleOutline:
    """One module: its path as in `named_modules` ('' is the model itself), the name of its class,
    the widths of what goes in and comes out (channels, features, rows of a table; 0 where its kind
    has none) and its parameters, those of the modules inside it included. `role` is what it is
    whatever its class is called: one of `ROLES`, '' for any other.
    """

    path: str
    kind: str
    inputs: int = 0
    outputs: int = 0
    parameters: int = 0
    role: str = ""

    @property
    def parent(self) -> str:
        return self.path.rpartition(".")[0]


@dataclass(frozen=True)
class ModelOutline:
    """All modules of the untouched model, parents first, in the order of `named_modules`."""

    modules: tuple[ModuleOutline, ...]

    def of_kind(self, *kinds: str) -> tuple[ModuleOutline, ...]:
        """The modules whose class has one of these names."""
        return tuple(m for m in self.modules if m.kind in kinds)

    def of_role(self, *roles: str) -> tuple[ModuleOutline, ...]:
        """The modules with one of these roles."""
        return tuple(m for m in self.modules if m.role in roles)

    @property
    def blocks(self) -> tuple[ModuleOutline, ...]:
        """The repeated blocks, which people call the model's layers: all modules of the kind that
        has the most instances side by side, each with modules inside it. Of equally many, the kind
        with the most parameters; containers only where there is nothing else. Empty for a model
        that repeats nothing.
        """
        holding = {m.parent for m in self.modules if m.path}
        sides: dict[tuple[str, str], int] = defaultdict(int)
        kinds: dict[str, list[ModuleOutline]] = defaultdict(list)
        for m in self.modules:
            if m.path and m.path in holding:
                sides[m.parent, m.kind] += 1
                kinds[m.kind].append(m)
        most: dict[str, int] = defaultdict(int)
        for (_, kind), count in sides.items():
            most[kind] = max(most[kind], count)
        repeated = [kind for kind, count in most.items() if count > 1]
        if not repeated:
            return ()
        chosen = max(
            repeated,
            key=lambda k: (k not in _CONTAINERS, most[k], sum(m.parameters for m in kinds[k])),
        )
        return _outermost(kinds[chosen])


def _outermost(modules: Iterable[ModuleOutline]) -> tuple[ModuleOutline, ...]:
    """Without those that lie inside another of them."""
    kept: list[ModuleOutline] = []
    for m in modules:  # parents come first
        if not any(m.path.startswith(f"{outer.path}.") for outer in kept):
            kept.append(m)
    return tuple(kept)
