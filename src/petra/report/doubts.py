"""What noise leaves open about a front, in words."""

from __future__ import annotations

from petra.front import Front
from petra.report.numbers_text import with_error


def doubts(front: Front) -> list[str]:
    """What noise leaves open about the members, a line for each."""
    lines = [
        f"{one}: its {front.metric} cannot be told from that of {other}, which costs less"
        for one, other in front.no_better.items()
    ]
    lines += [f"{number}: {text}" for number, text in front.measured_again.items()]
    for trial in front.members:
        several = front.over_seeds(trial)
        if several is not None:
            lines.append(
                f"{trial.number}: built with {several.n} seeds, {front.metric} (test)"
                f" {with_error(several)} on average"
            )
    return lines
