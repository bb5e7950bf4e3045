"""Legality by declared effects: what a stage needs of the model, what it gives, and what it takes
away.

The state of a model is a set of facts. A stage is legal when every fact in `needs` holds and none
in `forbids`; then `gives` are added and `removes` taken away. Nothing here, or above, knows a stage
by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# The facts that hold for an untouched PyTorch model, unless it is found to be otherwise
# (`petra.methods.facts`).
FLOAT_WEIGHTS = "float weights"  # weights are floating point and can be edited
TRAINABLE = "trainable"  # gradients reach the weights
PLAIN_LAYERS = "plain layers"  # layers are as the author wrote them, not factored
DENSE_WEIGHTS = "dense weights"  # no weights are held at zero
INPUT_GRADIENTS = "input gradients"  # gradients pass through all layers, trained or not
# Facts that stages give.
CUT_CHANNELS = "cut channels"  # layers have lost input channels and have not been refitted since
INITIAL_FACTS = frozenset({FLOAT_WEIGHTS, TRAINABLE, PLAIN_LAYERS, DENSE_WEIGHTS, INPUT_GRADIENTS})


@dataclass(frozen=True)
class Effects:
    """A stage's declaration."""

    needs: frozenset[str] = frozenset()
    forbids: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()
    removes: frozenset[str] = frozenset()

    @staticmethod
    def of(
        *,
        needs: Iterable[str] = (),
        forbids: Iterable[str] = (),
        gives: Iterable[str] = (),
        removes: Iterable[str] = (),
    ) -> Effects:
        return Effects(frozenset(needs), frozenset(forbids), frozenset(gives), frozenset(removes))

    def objection(self, facts: frozenset[str]) -> str:
        """Why the stage may not run on a model of which `facts` hold; '' when it may."""
        missing = self.needs - facts
        if missing:
            return f"needs {', '.join(sorted(missing))}"
        clash = self.forbids & facts
        return f"not on a model with {', '.join(sorted(clash))}" if clash else ""

    def after(self, facts: frozenset[str]) -> frozenset[str]:
        return (facts - self.removes) | self.gives
