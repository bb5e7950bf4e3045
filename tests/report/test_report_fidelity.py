"""Trials of reduced fidelity, in words."""

from __future__ import annotations

from petra.core.measurement import Measurement
from petra.core.objective import Constraint, named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, Fidelity, Trial, TrialStatus
from petra.front import Front
from petra.report.pipeline_text import fidelity_in_words


def test_reduced_fidelity_alone_makes_no_front_and_says_so() -> None:
    metrics = {"size_bytes": Measurement(1000.0, unit="B"), "quality": Measurement(0.9)}
    base = Trial(0, Pipeline(), TrialStatus.COMPLETE, metrics=metrics)
    small = {**metrics, "size_bytes": Measurement(500.0, unit="B")}
    tune, low = Pipeline((StageSpec("tune"),)), Fidelity(zero_shot=True)
    trial = Trial(1, tune, TrialStatus.COMPLETE, fidelity=low, metrics=small)
    bounds = [Constraint.parse("size <= 600 B")]
    found = Front.of([base, trial], named_objectives(("quality", "size_bytes")), bounds)
    assert not found.members
    assert found.why_empty() == (
        "not the one trial that there was is feasible: 1 was evaluated at a reduced fidelity"
    )


def test_fidelities_in_words() -> None:
    words = [
        fidelity_in_words(f)
        for f in (FULL, Fidelity(zero_shot=True), Fidelity(epochs=1 / 9), Fidelity(0.5, 0.25))
    ]
    assert words == ["", "zero shot", "0.11 of epochs", "0.5 of epochs, 0.25 of data"]
