"""A parameter of a stage: its domain, its default, and when it means anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from petra.core.pipeline import Value
from petra.space.domains import Domain

_OR = " or "


@dataclass(frozen=True)
class Parameter:
    """A stage's parameter.

    `domain` is what the search draws from; `limits`, at least as wide, is what a person may set.
    `when` names values (a few, or a domain of them) of other parameters under which this one means
    anything, "a or b" being any of these two; elsewhere it is left out of the pipeline, so that two
    pipelines that do the same are equal. `scope` groups parameters that a *global* move changes in
    all stages at once ("optimizer", "loss"). An `implied` parameter is left out of a pipeline at
    its default, so that pipelines made before it existed are still the same ones.

    A name such as "layers.encoder.0" is that of a member of a family, one for each of some of the
    model's modules. Where the model is not known, "layers.*" stands for all of them.
    """

    name: str
    default: Value
    domain: Domain
    limits: Domain
    doc: str
    when: Mapping[str, tuple[Value, ...] | Domain] = field(default_factory=dict)
    scope: str = ""
    implied: bool = False

    @property
    def family(self) -> str:
        """ "layers.*" for "layers.encoder.0" and for itself; '' for a parameter on its own."""
        head, dot, _ = self.name.partition(".")
        return f"{head}.*" if dot else ""

    @property
    def is_family(self) -> bool:
        """Whether it stands for members that only the model can name."""
        return self.name == self.family

    def stands_for(self, name: str) -> bool:
        """Whether `name` is its own, or one that a member of the family may have."""
        return name == self.name or (self.is_family and name.startswith(self.name[:-1]))

    def active(self, params: Mapping[str, Value]) -> bool:
        """Whether the parameter means anything given the values of the others."""
        return all(
            any(_allows(allowed, params.get(name)) for name in names.split(_OR))
            for names, allowed in self.when.items()
        )

    @property
    def depends_on(self) -> frozenset[str]:
        """Names of the parameters whose values decide whether it means anything."""
        return frozenset(name for names in self.when for name in names.split(_OR))


def _allows(allowed: tuple[Value, ...] | Domain, value: object) -> bool:
    return allowed.contains(value) if isinstance(allowed, Domain) else value in allowed
