"""What a study is created with, and keeps: another version of petra, or studies that have gone on
since, change nothing about it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from petra.config import PriorConfig
from petra.core.errors import ConfigError, StoreError
from petra.core.pipeline import Pipeline
from petra.prior.learn import learn
from petra.prior.past import ALIKE, MOST_TRIED, Past, past_studies
from petra.prior.setting import SETTING_NOTE, Setting
from petra.prior.shipped import shipped
from petra.search.prior import WORKS, Prior
from petra.store.store import Store

PRIOR_NOTE, PAST_NOTE = "prior", "past"


@dataclass(frozen=True)
class Knowledge:
    """`prior` is what the search believes to begin with, None where nothing; `past` are pipelines
    of past studies to try, the best first; `about` says in a line what is known of them. `setting`
    is what a new study is about.
    """

    prior: Prior | None = None
    past: tuple[Pipeline, ...] = ()
    about: str = ""
    setting: Setting | None = None

    @staticmethod
    def gathered(
        config: PriorConfig, setting: Setting, quantities: Collection[str], *, besides: Path
    ) -> Knowledge:
        """For a new study in the directory `besides`, about these quantities.

        Raises ConfigError where a past study cannot be read. Costs a second for some thousand
        trials.
        """
        wanted = {*quantities, WORKS}
        prior = None
        if config.shipped:
            prior = shipped().for_place(setting)
        found = past_studies(config.studies, besides=besides)
        courses = [past.course(setting) for past in found]
        if any(course.worth for course in courses):
            prior = learn(courses, prior)
        if prior is not None:
            prior = Prior({name: m for name, m in prior.models.items() if name in wanted})
            # With the digits that are kept, so that a study believes the same when it goes on.
            prior = Prior.from_dict(prior.as_dict())
        ordered = sorted(found, key=lambda past: -past.likeness(setting))
        alike = [past for past in ordered if past.likeness(setting) >= ALIKE]
        return Knowledge(prior, _best(alike), _about(ordered, setting), setting)

    def notes(self) -> dict[str, object]:
        """What a study that is created with it keeps of it."""
        past = [pipeline.as_list() for pipeline in self.past]
        return {
            SETTING_NOTE: self.setting and self.setting.as_dict(),
            PRIOR_NOTE: self.prior and self.prior.as_dict(),
            PAST_NOTE: {"pipelines": past, "about": self.about},
        }

    @staticmethod
    def stored(store: Store) -> Knowledge:
        """What the study was created with; nothing for one from before there was any. Raises
        StoreError for what makes no sense.
        """
        prior, past = store.note(PRIOR_NOTE), store.note(PAST_NOTE) or {}
        known = Knowledge()
        try:
            if prior is not None:
                known = replace(known, prior=Prior.from_dict(prior))
            if not isinstance(past, dict) or not isinstance(past.get("pipelines", []), list):
                raise ConfigError("pipelines of past studies are a list")
            pipelines = tuple(Pipeline.from_list(item) for item in past.get("pipelines", []))
            return replace(known, past=pipelines, about=str(past.get("about", "")))
        except ConfigError as error:
            notes = f"notes {PRIOR_NOTE} and {PAST_NOTE}"
            raise StoreError(f"{store.directory} is damaged: {notes}: {error}") from None


def _best(alike: list[Past]) -> tuple[Pipeline, ...]:
    """The best of each in turn, until there are enough."""
    rows = [past.best(MOST_TRIED) for past in alike]
    turns = [row[i] for i in range(MOST_TRIED) for row in rows if i < len(row)]
    return tuple(dict.fromkeys(turns))[:MOST_TRIED]


def _about(found: list[Past], setting: Setting) -> str:
    if not found:
        return ""
    told = ", ".join(f"{p.directory.name} {p.likeness(setting):.2f}" for p in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    count = sum(len(p.trials) - 1 for p in found if p.likeness(setting))
    return f"{count} trials of past studies are known (how alike they are, of 1: {told}{more})"
