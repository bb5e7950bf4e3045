"""The prior that ships with petra."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from petra.core.metric import describe
from petra.prior.setting import Setting
from petra.search.prior import WORKS, Prior

SHIPPED = "shipped.json"


@dataclass(frozen=True)
class Shipped:
    """A prior, and the places (runtime, device) whose timings it was learnt from."""

    prior: Prior
    places: frozenset[tuple[str, str]]

    def for_place(self, setting: Setting) -> Prior:
        """Of what is timed only where it was learnt there."""
        if (setting.runtime, setting.device) in self.places:
            return self.prior
        known = self.prior.models
        return Prior({name: m for name, m in known.items() if not _timed(name)})


def _timed(name: str) -> bool:
    return name != WORKS and describe(name).timed


@cache
def shipped() -> Shipped:
    """As ``benchmarks/learn_prior.py`` wrote it."""
    data = json.loads(files("petra.prior").joinpath(SHIPPED).read_text(encoding="utf-8"))
    places = frozenset((str(runtime), str(device)) for runtime, device in data["places"])
    return Shipped(Prior.from_dict(data["models"]), places)
