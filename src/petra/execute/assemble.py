"""What an executor is given, put together from a study's settings and what was examined."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from petra.config import StudyConfig
from petra.core.interface import Interface
from petra.core.target import Target
from petra.execute.added import added_plugins
from petra.execute.base import Assignment, Limits
from petra.execute.build import BuildPayload
from petra.execute.crew import Crew
from petra.measure.host import describe_host
from petra.store.layout import StudyPaths
from petra.tasks.base import Task


class Examined(Protocol):
    """What `petra.intake` says of a model and its task."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def task(self) -> Task: ...

    @property
    def interface(self) -> Interface: ...


def assemble(
    config: StudyConfig,
    paths: StudyPaths,
    examined: Examined,
    *,
    mark: str,
    threads: int | None,
    stages: tuple[str, ...] = (),
    target: Target | None = None,
) -> Assignment:
    """`mark` is the fingerprint of model and data, `stages` are the kinds that may be asked for;
    `target` stands in for that of the study.
    """
    limits = config.limits
    payload = BuildPayload(
        model=examined.model,
        task=examined.task,
        target=target or config.target,
        interface=examined.interface,
        seed=config.seed,
        data=paths.data,
        cache=paths.cache(mark),
        cache_bytes=limits.cache,
        device=config.device,
        plugins=added_plugins(),
        stages=stages,
        metrics=tuple(config.metrics_named()),
    )
    return Assignment(
        payload=payload,
        paths=paths,
        limits=Limits(limits.trial_time, limits.trial_memory / 2**20),
        constraints=config.parsed_constraints(),
        metrics=tuple(config.metrics_named()),
        savings=config.savings,
        host=str(describe_host()["id"]),
        crew=Crew.of(config),
        threads=threads,
    )
