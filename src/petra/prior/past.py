"""What past studies of the user's teach: their trials, and the pipelines on their fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from petra.config import StudyConfig, parse_config
from petra.core.errors import ConfigError, PetraError
from petra.core.metric import describe
from petra.core.objective import Objective, named_objectives
from petra.core.pipeline import Pipeline
from petra.core.text import printable
from petra.core.trial import Trial
from petra.front import Front
from petra.moo.selection import survivors
from petra.prior.learn import Course, lessons
from petra.prior.setting import SETTING_NOTE, Setting
from petra.search.scaling import Scaling, scale
from petra.store.store import Store

ALIKE = 0.4  # likeness from which on pipelines of a study are tried again
MOST_TRIED = 6  # pipelines of all past studies together
MOST_STUDIES = 200


@dataclass(frozen=True, eq=False)
class Past:
    """A past study: its trials and how they are ranked. `setting` is None for one from before it
    was written down.
    """

    directory: Path
    setting: Setting | None
    scaling: Scaling
    trials: tuple[Trial, ...]

    def likeness(self, here: Setting) -> float:
        """How much of it holds here, from 0 to 1."""
        return 0.0 if self.setting is None else self.setting.likeness(here)

    def course(self, here: Setting) -> Course:
        """What it teaches a study of this setting."""
        elsewhere = self.setting is None or not self.setting.same_place(here)
        timed = {o.metric for o in self.scaling.objectives if describe(o.metric).timed}
        without = frozenset(timed if elsewhere else ())
        return Course(lessons(self.trials, self.scaling), self.likeness(here), without)

    def best(self, count: int) -> list[Pipeline]:
        """At most so many pipelines of its front, which together have the most hypervolume."""
        front = Front.of(list(self.trials), self.scaling.objectives, self.scaling.constraints)
        members = [t for t in front.members if t.number]
        if len(members) > count:
            costs = [self.scaling.costs(t) for t in members]
            kept = survivors(np.array(costs), count, reference=self.scaling.reference)
            members = [members[int(i)] for i in kept]
        return [t.pipeline for t in members]


def past_studies(places: Sequence[str], *, besides: Path) -> list[Past]:
    """The studies in these directories: each is a study, or a folder that holds some; that in
    `besides` is left out.

    Raises ConfigError, with the place, where there is no study, or one that cannot be read.
    """
    found: dict[Path, Past] = {}
    for i, place in enumerate(places):
        where = f"prior.studies[{i}]"
        for directory in _directories(Path(place), where):
            whole = directory.resolve()
            if whole == besides.resolve() or whole in found:
                continue
            try:
                past = _read(directory)
            except PetraError as error:
                raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
            if past is not None:
                found[whole] = past
    return list(found.values())


def _directories(place: Path, where: str) -> list[Path]:
    try:
        if Store.exists(place):
            return [place]
        inside = sorted(p for p in place.iterdir() if p.is_dir() and Store.exists(p))
    except OSError as error:
        raise ConfigError(
            f"{where}: {printable(str(place))} cannot be read: {error.strerror}",
            hint="give the directory of a study, or of a folder that holds studies",
        ) from None
    if not inside or len(inside) > MOST_STUDIES:
        raise ConfigError(
            f"{where}: {printable(str(place))} holds {len(inside)} studies",
            hint=f"give the directory of a study, or of a folder of 1 to {MOST_STUDIES} studies",
        )
    return inside


def _read(directory: Path) -> Past | None:
    """None for a study that has nothing to tell yet."""
    with Store.open(directory, write=False) as store:
        trials, config = store.trials(), parse_config(store.config, where=str(directory))
        setting = Setting.from_note(store.note(SETTING_NOTE))
    if not trials or not trials[0].measured:
        return None
    maximize = setting.maximize if setting else True
    objectives = _objectives(config, maximize, trials[0])
    scaling = scale(objectives, config.parsed_constraints(), trials[0])
    return Past(directory, setting, scaling, tuple(trials))


def _objectives(config: StudyConfig, maximize: bool, baseline: Trial) -> tuple[Objective, ...]:
    known = [name for name in config.objectives if name in baseline.metrics]
    return named_objectives(known, maximize_quality=maximize)
