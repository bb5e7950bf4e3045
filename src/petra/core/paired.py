"""Differences between models that were measured on the same items."""

from __future__ import annotations

import math

from petra.core.measurement import Measurement
from petra.core.metric import CHANGE
from petra.core.objective import Metrics


def score_change(mine: Metrics, old: Metrics, name: str) -> Measurement | None:
    """How much more of the score `name` one model has than the untouched one: paired by item where
    it was measured so, else as of two independent samples; None where either has none.
    """
    if name not in mine or name not in old:
        return None
    if name + CHANGE in mine:
        return mine[name + CHANGE]
    new, before = mine[name], old[name]
    spread = math.hypot(new.stderr, before.stderr)
    return Measurement(new.mean - before.mean, spread, min(new.n, before.n))
