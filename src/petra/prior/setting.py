"""What a study was about, as far as it decides what another can learn from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from petra.core.errors import StoreError

SETTING_NOTE = "setting"
OTHER_METRIC = 0.7  # what a study that judges by another metric is worth
FAR = math.log(100.0)  # models of so many times the parameters are worth 1 / e


@dataclass(frozen=True)
class Setting:
    """The untouched model (`traits` are words of `petra.recipes.recipe`, and its number of
    parameters), the metric that is its task's quality, and where it is to run.
    """

    traits: tuple[str, ...]
    parameters: int
    metric: str
    maximize: bool
    runtime: str
    device: str

    def likeness(self, other: Setting) -> float:
        """From 0, nothing in common, to 1: by traits, size and metric. Runtime and device do not
        count: what depends on them is learnt only where they are the same.
        """
        if self.maximize != other.maximize:
            return 0.0
        mine, theirs = set(self.traits), set(other.traits)
        shared = len(mine & theirs) / len(mine | theirs) if mine | theirs else 1.0
        apart = abs(math.log(max(1, self.parameters) / max(1, other.parameters)))
        metric = 1.0 if self.metric == other.metric else OTHER_METRIC
        return shared * metric * math.exp(-apart / FAR)

    def same_place(self, other: Setting) -> bool:
        """Whether what is timed in one means something in the other."""
        return (self.runtime, self.device) == (other.runtime, other.device)

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "traits": list(self.traits)}

    @staticmethod
    def from_note(note: object) -> Setting | None:
        """None where a study has none, from before there were any. Raises StoreError for what makes
        no sense.
        """
        if note is None:
            return None
        kinds = {"traits": list, "parameters": int, "metric": str, "maximize": bool}
        kinds |= {"runtime": str, "device": str}
        known = note if isinstance(note, Mapping) else {}
        if any(type(known.get(key)) is not kind for key, kind in kinds.items()):
            raise StoreError(f"note {SETTING_NOTE} makes no sense")
        values = {key: known[key] for key in kinds if key != "traits"}
        return Setting(traits=tuple(map(str, known["traits"])), **values)
