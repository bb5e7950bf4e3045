"""States of trainings that were stopped early, kept beside the models of the prefix cache: whoever
trains the same further goes on from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from safetensors.torch import load, save

from petra.core.pipeline import Pipeline
from petra.execute.entries import DAMAGE, Entries
from petra.training.effort import TrainingState


@dataclass(frozen=True)
class KeptStates:
    """Those of the stage that ends `prefix`. They share the cache's room, and leave like models."""

    entries: Entries
    prefix: Pipeline

    def _name(self, training: int) -> str:
        return f"{self.prefix.key}.{training}"

    def load(self, training: int) -> TrainingState | None:
        name = self._name(training)
        try:
            tensors, record = self.entries.read(name)
            if record["pipeline"] != self.prefix.canonical():
                raise ValueError("the state is another pipeline's")
            state = TrainingState(load(tensors), record["state"])
            self.entries.used(name)
        except FileNotFoundError:
            return None
        except DAMAGE:
            self.entries.remove(name)
            return None
        return state

    def save(self, training: int, state: TrainingState) -> None:
        """In the place of one with fewer steps. Where it does not fit, it is trained again."""
        there = self.load(training)
        if there is not None and there.steps >= state.steps:
            return
        self.entries.remove(self._name(training))
        record = {"pipeline": self.prefix.canonical(), "state": dict(state.record)}
        self.entries.write(self._name(training), save(dict(state.tensors)), record)

    def forget(self) -> None:
        """The stage has trained to its end."""
        for training in count():
            if not self.entries.exists(self._name(training)):
                return
            self.entries.remove(self._name(training))
