"""How long steps should be: longer after success, shorter after failure, per scope of parameters.

The one-fifth success rule (Rechenberg 1973; as in Kern et al. 2004): the logarithm of a scope's
step moves by RATE (success - 1/5) / (4/5), so that one success makes up for four failures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from petra.core.pipeline import Pipeline
from petra.space.space import Space

RATE = 0.3
SHARE = 0.2  # of children that are worth having, at which steps stay as long as they are
LEAST, MOST = 0.02, 1.5  # times the usual step


class StepSizes:
    """Steps by scope, as times the usual one. A function of what `learn` was told, in order."""

    def __init__(self, space: Space) -> None:
        self.space = space
        scopes = {p.scope for card in space.cards.values() for p in card.parameters}
        self.steps: dict[str, float] = dict.fromkeys(sorted(scopes), 1.0)

    def learn(self, parent: Pipeline, child: Pipeline, *, worthy: bool) -> None:
        """A child that differs from its parent in values alone; others say nothing."""
        if [s.kind for s in parent] != [s.kind for s in child]:
            return
        moved = set()
        for before, after in zip(parent, child, strict=True):
            card = self.space.cards[before.kind]
            values = card.values(before)
            moved |= {
                p.scope
                for p in card.parameters
                if p.name in after.params and after.params[p.name] != values.get(p.name)
            }
        change = math.exp(RATE * (worthy - SHARE) / (1 - SHARE))
        for scope in moved:
            self.steps[scope] = min(max(self.steps[scope] * change, LEAST), MOST)

    def scaled(self, factor: float) -> Mapping[str, float]:
        """All steps, `factor` times as long."""
        return {scope: step * factor for scope, step in self.steps.items()}
