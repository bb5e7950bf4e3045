"""Learning curves that cannot catch up: a candidate is left while it trains, when even an
optimistic end of its training would not help it.

*The rule* (`ceiling_of`). Of every whole training among the trials told it is known which share of
the distance between what it had reached at some point and the best quality that is known (of the
untouched model and the rivals on the front) it made good by its end. A candidate at that point of
its own training is given the largest of these shares, and two standard errors; with that for its
quality, and with what is known of its costs, it is held against constraints and rivals like any
other. Fewer than `ENOUGH` curves say nothing, and who has reached the best quality is not judged.

*Whose curve.* That of the last stage that trains, where it has one training; later stages, which
train nothing, are not hoped to improve it. A curve is judged at every epoch behind it, whether that
was trained now, in a lower rung or by another candidate, so that the verdict depends on none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from petra.core.curve import curve_of
from petra.core.metric import QUALITY
from petra.core.rivals import Rivals
from petra.core.trial import StageTrace
from petra.execute.prospects import Hopeless, Known, Left, Span, hopeless

ENOUGH = 5
_ERRORS = 2.0
_DIGITS = 5  # to which a trace has scores


class CurveWatch:
    """Judges one candidate's last training: `watch(scores, epochs)` with the validation scores
    before it and after each epoch so far, of `epochs` in all. `found` is why it can be left.
    """

    def __init__(
        self, rivals: Rivals, known: Known, *, maximize: bool, audit: bool = False
    ) -> None:
        self.found: Hopeless | None = None
        self._rivals, self._known = rivals, known
        self._maximize, self._audit = maximize, audit

    def __call__(self, scores: Sequence[float], epochs: int) -> None:
        """Raises Left when the candidate is hopeless, unless it is audited."""
        done = len(scores) - 1
        if self.found or not 0 < done < epochs:
            return
        best = ceiling_of(
            [round(score, _DIGITS) for score in scores], epochs, self._rivals, self._maximize
        )
        if best is None:
            return
        span = Span(-np.inf, best) if self._maximize else Span(best, np.inf)
        found = hopeless({**self._known, QUALITY: span}, self._rivals)
        if found:
            reason = f"after epoch {done} of {epochs}: {found.reason}"
            self.found = replace(found, kind="learning curve", reason=reason)
            if not self._audit:
                raise Left(self.found, {}, ())

    def kept(self, trace: StageTrace) -> None:
        """Judge the curve of a training that had run before."""
        curve = curve_of(trace)
        for done in range(1, len(curve)):
            self(curve[: done + 1], len(curve) - 1)


def ceiling_of(
    scores: Sequence[float], epochs: int, rivals: Rivals, maximize: bool
) -> float | None:
    """The quality that a training may end at which has come so far; None where nobody can say."""
    sign = 1.0 if maximize else -1.0
    best = max(sign * metrics[QUALITY].mean for metrics in (rivals.baseline, *rivals.front))
    now, share = sign * scores[-1], (len(scores) - 1) / epochs
    told = [sign * np.asarray(curve) for curve in rivals.curves]
    made_good = []
    for curve in told:
        then = float(np.interp(share, np.linspace(0, 1, len(curve)), curve))
        if then < best:
            made_good.append(float(curve[-1] - then) / (best - then))
    if len(made_good) < ENOUGH or not now < best:
        return None
    most = max(0.0, *made_good)
    return sign * (now + most * (best - now) + _ERRORS * rivals.baseline[QUALITY].stderr)
