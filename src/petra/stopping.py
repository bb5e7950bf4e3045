"""When a search ends: time, trials, a goal that is met, no progress. Of the time, what the final
measurements will take is kept for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import mean, median

import numpy as np

from petra.config import StudyConfig
from petra.core.objective import violation
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.listener import Clock
from petra.moo.dominance import dominates
from petra.search.base import Problem
from petra.search.durations import Durations, Rates
from petra.search.scaling import scale

MOST_KEPT = 1 / 3  # of the time, for the final measurements
USUAL_FRONT = 5  # models on a final front, before anything is known of it
SMALL_SHARE = 1 / 5  # of the time, for the untouched model; no word about less
USUAL_TRIAL = 1.0  # times the untouched model's seconds that a candidate takes, likewise


class Stopping:
    """The budget of a study and what is spent of it. `elapsed()` are the seconds of search so far;
    `generation` is how many trials one has.

    Progress is judged on trials in the order of their numbers, whoever finished first.
    """

    def __init__(self, config: StudyConfig, problem: Problem, elapsed: Callable[[], float]) -> None:
        self.budget, self.problem, self.elapsed = config.budget, problem, elapsed
        self.generation = 1
        self._goal = config.parsed_goal()
        self._trials: dict[int, Trial] = {}
        self._at_goal: int | None = None  # the first trial that meets the goal
        self._judged = 0  # trials up to this number have been looked at for progress
        self._progress = 0  # the last trial that made some
        self._front: list[Trial] = []
        self._best = (0.0, float("inf"))  # hypervolume and least violation when it did

    def learn(self, trial: Trial) -> None:
        """A trial that has ended, in this session or an earlier one; number 0 comes first."""
        self._trials[trial.number] = trial
        if trial.number == 0:
            self._scaling = scale(self.problem.objectives, self.problem.constraints, trial)
            self._best = self._extended(trial)
            return
        if self._goal and self._at_goal is None and trial.status is TrialStatus.COMPLETE:
            missing = violation(self._goal, trial.metrics, self._trials[0].metrics)
            if trial.comparable and missing == 0:
                self._at_goal = trial.number
        while self._judged + 1 in self._trials:
            self._judged += 1
            self._judge(self._trials[self._judged])

    def _judge(self, trial: Trial) -> None:
        volume, least = self._extended(trial)
        factor = 1 + self.budget.progress
        if volume > self._best[0] * factor or least * factor < self._best[1]:
            self._best, self._progress = (volume, least), trial.number

    def _extended(self, trial: Trial) -> tuple[float, float]:
        """Hypervolume and least violation with this trial, which joins the front if it belongs."""
        volume, least = self._best
        if not self._scaling.usable(trial):
            return volume, least
        wrong = self._scaling.violation(trial)
        if wrong:
            return volume, min(least, wrong)
        costs = self._scaling.costs(trial)
        others = [(t, self._scaling.costs(t)) for t in self._front]
        if any(dominates(c, costs) or np.array_equal(c, costs) for _, c in others):
            return volume, 0.0
        self._front = [*(t for t, c in others if not dominates(costs, c)), trial]
        return self._scaling.hypervolume(self._front), 0.0

    # ---- what is left ----------------------------------------------------------------------------

    @property
    def kept_s(self) -> float:
        """Seconds kept for measuring the front once more, at the untouched model's pace, and for
        building its members again where that is asked; at most a third of the time.
        """
        return 0.0 if self.budget.time is None else self._final_s()

    def _final_s(self) -> float:
        """Seconds that the final measurements will take."""
        if 0 not in self._trials:
            return 0.0
        members = len({t.number for t in self._front} | {0}) if self._judged else USUAL_FRONT
        again = sum(t.seconds for t in self._front if t.number) * self.budget.confirm
        needed = members * self._trials[0].seconds + again
        most = self.budget.time
        return needed if most is None else min(MOST_KEPT * most, needed)

    def remaining(self) -> float | None:
        """Seconds for what has not begun yet; None: no limit."""
        if self._at_goal is not None:
            return 0.0
        limit = self.budget.time
        return None if limit is None else limit - self.kept_s - self.elapsed()

    def most_trials(self) -> int | None:
        """Candidates that the budget allows; None: no limit."""
        rounds = self.budget.generations
        limits = (self.budget.trials, None if rounds is None else rounds * self.generation)
        return min((n for n in limits if n is not None), default=None)

    def clock(self) -> Clock:
        return replace(self._clock(), kept_s=self._final_s(), over=bool(self.reason()))

    def _clock(self) -> Clock:
        searched = max(0, len(self._trials) - 1)
        return Clock(searched, self.elapsed(), self.most_trials(), self.budget.time)

    def reason(self) -> str:
        """Why to stop now; '' to go on."""
        budget, clock = self.budget, self._clock()
        if budget.time is not None and clock.elapsed_s >= budget.time - self.kept_s:
            return f"the time budget of {budget.time:.0f} s is spent"
        if budget.trials is not None and clock.trials >= budget.trials:
            return f"the budget of {budget.trials} trials is spent"
        if clock.max_trials is not None and clock.trials >= clock.max_trials:
            return f"the budget of {budget.generations} generations is spent"
        if budget.stagnation and self._judged - self._progress >= budget.stagnation:
            return f"no progress in {budget.stagnation} trials"
        return "" if self._at_goal is None else f"trial {self._at_goal} meets the goal"

    def forecast(self, epoch_s: float | None = None, workers: int = 1) -> str:
        """How many trials fit into the time that is left, in words; '' without a limit on time.
        epoch_s: seconds of training the untouched model for an epoch, where that is known.
        """
        left = self.remaining()
        if self.budget.time is None or left is None:
            return ""
        ended = [t.seconds for n, t in self._trials.items() if n and t.seconds > 0]
        each = median(ended) if ended else self._usual_s(epoch_s)
        fit = int(workers * max(0.0, left) / max(each, 1e-3))
        most = self.most_trials()
        if most is not None:
            fit = min(fit, max(0, most - self._clock().trials))
        if not fit:
            return "" if ended else f"no trial fits into {self.budget.time:.0f} s: {self._spent()}"
        text = (
            f"about {fit} {'trial fits' if fit == 1 else 'trials fit'} into {self.budget.time:.0f}"
            f" s, of which {self.kept_s:.0f} s are kept for the final measurements"
        )
        return text + ("; give the search more time" if fit < 3 else "")

    def _spent(self) -> str:
        first = self._trials[0]
        return (
            f"the untouched model alone took {max(first.finished_at, first.seconds):.0f} s, and"
            f" {self.kept_s:.0f} s are kept for the final measurements; give the search more time"
        )

    def foretold(self, seconds: float) -> str:
        """What is left for trials once measuring the untouched model will have taken `seconds`, in
        words; '' where that is a small share of the time.
        """
        time = self.budget.time
        if time is None or seconds < SMALL_SHARE * time:
            return ""
        left = time - min(MOST_KEPT * time, USUAL_FRONT * seconds) - seconds
        rest = f"about {left:.0f} s are left for trials" if left > 0 else "no trial will be run"
        return (
            f"measuring the untouched model takes about {seconds:.0f} s of the {time:.0f} s that"
            f" the study may take: {rest}; give the search more time"
        )

    def _usual_s(self, epoch_s: float | None) -> float:
        """Seconds of a trial before any has ended: the mean of what the search begins with."""
        fixed_s = USUAL_TRIAL * self._trials[0].seconds
        first = [*self.problem.initial, *self.problem.recipes]
        if epoch_s is None or not first:
            return fixed_s
        durations = Durations(self.problem.space, Rates(fixed_s, epoch_s))
        return mean(durations.predict(Proposal(n, p)) for n, p in enumerate(first, 1))
