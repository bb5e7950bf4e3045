"""The learning curve that a trace tells."""

from __future__ import annotations

from collections.abc import Mapping

from petra.core.trial import StageTrace


def curve_of(trace: StageTrace) -> tuple[float, ...]:
    """Validation scores before a stage's training and after every epoch; () unless it has one
    training, and that to its end.
    """
    details: Mapping[str, object] = trace.details
    scores, before, epochs = (details.get(k) for k in ("curve", "score_before", "epochs"))
    if not isinstance(scores, list) or not isinstance(before, float | int):
        return ()
    numbers = [float(x) for x in scores if isinstance(x, float | int)]
    return (float(before), *numbers) if numbers and len(numbers) == epochs else ()
