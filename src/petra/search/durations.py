"""How long a candidate is expected to take, as far as that can be told from its pipeline.

Nothing here is timed while a study runs: with other workers, or on another day, the same study
would then propose otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from petra.core.pipeline import StageSpec
from petra.core.trial import Proposal, Trial
from petra.space.space import Space

STAGE_EPOCHS = 0.1  # of a stage beside its training: calibration, surgery, storing the model


@dataclass(frozen=True)
class Rates:
    """Seconds of what does not depend on the pipeline (export, measuring), and of one epoch of
    plain training of the untouched model.
    """

    fixed_s: float = 1.0
    epoch_s: float = 1.0

    @staticmethod
    def of(fixed_s: float, epoch_s: float | None) -> Rates:
        """From what was measured when the study was created; what is not known is as long as the
        other.

        On a coarse grid: what ends first depends on the ratio of the two alone, which is a power of
        four, so that measured again it is the same as a rule. Powers of two change no order.
        """
        fixed = nearest_power(fixed_s, 2) if fixed_s > 0 else 1.0
        ratio = nearest_power(epoch_s / fixed_s, 4) if epoch_s and fixed_s > 0 else 1.0
        return Rates(fixed, fixed * ratio)


def nearest_power(value: float, base: int) -> float:
    """The power of `base` that is nearest to `value`, above 0, in terms of ratios."""
    return float(base) ** round(math.log(value, base))


class Durations:
    """Predicted seconds of proposals: a function of the study's rates, the pipeline and fidelity,
    and of which trials were told before, whose stages need not run again.

    A stage takes its epochs at `StageCard.epoch_cost` times the rate, and `STAGE_EPOCHS`. What is
    not known beforehand (a refusal, a screening, how much a cut saves) is not in it. Costs
    microseconds.
    """

    def __init__(self, space: Space, rates: Rates = Rates()) -> None:
        self.rates = rates
        self._costs: Mapping[str, float] = {k: c.epoch_cost for k, c in space.cards.items()}
        self._trained: dict[str, float] = {}  # by key of a prefix: at which share of its epochs

    def predict(self, proposal: Proposal) -> float:
        """Seconds of one worker."""
        share = _share(proposal)
        epochs = 0.0
        for prefix, stage in zip(proposal.pipeline.prefixes(), proposal.pipeline, strict=True):
            done = self._trained.get(prefix.key)
            epochs += STAGE_EPOCHS if done is None else 0.0
            cost = self._costs.get(stage.kind, 1.0)  # a plugin's that is gone
            epochs += cost * trained_epochs(stage) * max(0.0, share - (done or 0.0))
        return self.rates.fixed_s + self.rates.epoch_s * epochs

    def learn(self, trial: Trial) -> None:
        """A result was told: the models after its stages are there."""
        if not trial.measured:
            return
        share = _share(trial)
        for prefix in trial.pipeline.prefixes():
            self._trained[prefix.key] = max(share, self._trained.get(prefix.key, 0.0))


def trained_epochs(stage: StageSpec) -> float:
    """Passes over the training split that a stage makes, by the names of its parameters: `epochs`,
    and `epochs_between` any two of `steps`.
    """
    number = {k: v for k, v in stage.params.items() if isinstance(v, int | float)}
    between = number.get("epochs_between", 0) * (number.get("steps", 1) - 1)
    return float(number.get("epochs", 0) + between)


def _share(evaluated: Proposal | Trial) -> float:
    """Of the full training, by its fidelity."""
    fidelity = evaluated.fidelity
    return 0.0 if fidelity.zero_shot else fidelity.epochs * fidelity.data
