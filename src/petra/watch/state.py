"""What may be said of a study at a look: whether it runs, how far it is, and what to do next."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from enum import StrEnum

from petra.core.text import printable
from petra.report.numbers_text import duration
from petra.watch.look import Look, Seen

MOST_WHILE_RUNNING = 0.99  # of the budget: nothing is done that still runs


class State(StrEnum):
    """How it is with a study."""

    STARTING = "starting"  # a process has it, the untouched model is not measured yet
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"  # nobody has it, and it was not done
    UNREADABLE = "unreadable"  # it is gone, damaged, or of another version


def state_of(look: Look) -> State:
    """The state of a study."""
    if look.trouble or look.seen is None:
        return State.UNREADABLE
    if look.holder:
        return State.RUNNING if look.seen.front.baseline else State.STARTING
    return State.FINISHED if look.seen.record.stop_reason else State.STOPPED


def headline(look: Look) -> str:
    """The state in a sentence."""
    state = state_of(look)
    if state is State.UNREADABLE or look.seen is None:
        return printable(look.trouble.message) if look.trouble else "nothing is known yet"
    if state is State.FINISHED:
        return f"finished: {printable(look.seen.record.stop_reason)}"
    if state is State.STOPPED:
        again = (
            f"petra resume {shlex.quote(printable(look.seen.record.directory))}"
            if look.seen.record.config.has_source
            else "the same call of petra.compress"
        )
        return f"not alive: continue with {again}"
    phase = look.activity.phase if look.activity else ""
    if not phase:
        over = "over its budget" if progress(look).over else "searching"
        phase = "starting" if state is State.STARTING else over
    return f"alive: {printable(phase)}"


def who(look: Look) -> str:
    """Which process writes the study, and since when; '' where nobody does."""
    holder = look.holder
    if holder is None or not holder.pid:
        return "by a process that has not said its number" if holder else ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
    return f"process {holder.pid} on {holder.host}, since {since}"


def advice(look: Look) -> str:
    """What else to know or to do about the state; '' for nothing."""
    state = state_of(look)
    if state is State.UNREADABLE:
        kept = " What is shown is what was read last." if look.seen else ""
        hint = printable(look.trouble.hint) if look.trouble else ""
        return f"{hint[:1].upper()}{hint[1:]}.{kept}" if hint else kept.strip()
    if look.holder and look.activity and look.activity.said not in ("", look.activity.phase):
        return f"It said last: {look.activity.said}"
    if state is State.STOPPED and look.seen and look.seen.waiting:
        count = len(look.seen.waiting)
        s = "s" if count > 1 else ""
        return f"{count} candidate{s} under way or waiting when it ended will run first."
    return ""


@dataclass(frozen=True)
class Progress:
    """Seconds of search so far and, where the budget tells, seconds left until all is done, the
    final measurements included.
    """

    elapsed_s: float
    left_s: float | None

    @property
    def over(self) -> bool:
        """Whether nothing should be left, although it runs."""
        return self.left_s is not None and self.left_s <= 0

    @property
    def fraction(self) -> float | None:
        """Share of the whole that is done, at most 99%; None where nothing tells."""
        if self.left_s is None:
            return None
        return min(MOST_WHILE_RUNNING, self.elapsed_s / max(self.elapsed_s + self.left_s, 1e-9))


def how_far(look: Look) -> str:
    """'12 min 05 s, about 3 min 10 s left with the final measurements'."""
    done, state = progress(look), state_of(look)
    so_far = f"{duration(done.elapsed_s)} of search"
    if look.holder is None:
        left = done.left_s if state is State.STOPPED else None
        return f"{so_far}, about {duration(left)} not used" if left else so_far
    if done.left_s is None:
        return so_far
    if done.over:
        return f"{so_far}, the last measurements are under way"
    return f"{so_far}, about {duration(done.left_s)} left with the final measurements"


def progress(look: Look) -> Progress:
    """How far a study is. Of several limits the nearest counts."""
    elapsed = look.elapsed_s
    if look.seen is None:
        return Progress(elapsed, None)
    budget, left = look.seen.record.config.budget, []
    if budget.time is not None:  # what the final measurements need is kept of it
        left.append(budget.time - elapsed)
    searched = sum(trial.number > 0 for trial in look.seen.trials)
    if budget.trials is not None and searched:
        each = max((t.finished_at for t in look.seen.trials), default=0.0) / searched
        left.append(max(0, budget.trials - searched) * each + _confirming_s(look.seen))
    return Progress(elapsed, max(0.0, min(left)) if left else None)


def _confirming_s(seen: Seen) -> float:
    """Seconds that the final measurements will take at the untouched model's pace, as far as they
    are not done, and building members again where that is asked.
    """
    base = seen.front.baseline
    if base is None:
        return 0.0
    members = {t.number: t for t in (base, *seen.front.members)}.values()
    again = seen.record.config.budget.confirm
    missing = sum(
        max(0, again - len(seen.front.seeds.get(t.number, ()))) * t.seconds
        for t in members
        if t.number
    )
    return sum(not t.test for t in members) * base.seconds + missing
