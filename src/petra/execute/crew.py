"""How many candidates are built side by side, and with how many threads each: what gets most
training done on the cores there are. Workers change only the waiting; threads change what a
candidate comes out as, and are kept with a study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from petra.config.records import StudyConfig
from petra.measure.host import cores

WORTH_IT = 1.2  # so many times as much training, or it is not: less is within what trials vary
USUAL_MEMORY = 0.5  # of what a candidate may use: the limit is there for those that run away


@dataclass(frozen=True)
class Crew:
    """Room for workers: `given` by the user; without that as many as `cores` suffice for, at most
    `most`.
    """

    cores: int
    given: int | None = None
    most: int = 1

    @staticmethod
    def of(config: StudyConfig) -> Crew:
        """Where this process runs. More than a study has proposals for are of no use, nor are
        those whose memory is not there; a GPU is not shared.
        """
        limits = config.limits
        room = int(psutil.virtual_memory().total / (USUAL_MEMORY * limits.trial_memory))
        most = min(config.virtual_workers, room) if config.device == "cpu" else 1
        return Crew(cores(), limits.workers, max(1, most))

    def workers(self, threads: int) -> int:
        """Candidates built side by side, each with so many threads."""
        return self.given or max(1, min(self.most, self.cores // threads))

    def counts(self) -> tuple[int, ...]:
        """Numbers of threads worth trying, fewest first: one, and the cores shared out."""
        shares = [self.given] if self.given else [2**i for i in range(self.most.bit_length())]
        return tuple(sorted({1, *(max(1, self.cores // n) for n in shares)}))

    def threads(self, step_s: Mapping[int, float]) -> int:
        """Threads for each, from seconds of a training step by number of threads: few workers and
        few threads, unless others train `WORTH_IT` times as much together.
        """
        rate = {n: self.workers(n) / seconds for n, seconds in step_s.items()}
        enough = max(rate.values()) / WORTH_IT
        return min((n for n in rate if rate[n] >= enough), key=lambda n: (self.workers(n), n))
