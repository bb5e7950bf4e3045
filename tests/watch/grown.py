"""A study that another hand lets grow, and one that says what a page must not believe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from petra.core.metric import QUALITY
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Origin, Proposal, Trial, TrialStatus
from petra.store.store import Store
from petra.testing.studies import toy_study

HOSTILE = '"><img src=x onerror="window.owned=1"><script>window.owned=2</script>\'`${1}\u202e'


def add(store: Store, **changes: object) -> Trial:
    """One more trial, of a pipeline that no other has, as good as the untouched model but for
    `changes`.
    """
    number = len(store.proposals())
    propose(store)
    first = store.trial(0)
    pipeline = store.proposals()[-1].pipeline
    ended = replace(
        first,
        number=number,
        pipeline=pipeline,
        origin=Origin(("given",)),
        test={},
        finished_at=1000.0 + number,
        **changes,  # type: ignore[arg-type]
    )
    store.add(ended)
    return ended


def propose(store: Store, kind: str = "tune") -> Proposal:
    """One more proposal, which is not run."""
    number = len(store.proposals())
    proposal = Proposal(number, Pipeline((StageSpec(kind, {"epochs": number}),)))
    store.propose(proposal)
    return proposal


def smaller(store: Store, share: float) -> Mapping[str, object]:
    """Metrics of a model with that share of the untouched model's bytes."""
    metrics = dict(store.trial(0).metrics)
    size = metrics["size_bytes"]
    metrics["size_bytes"] = replace(size, mean=size.mean * share)
    return metrics


def hostile_study(directory: Path) -> Path:
    """A study in which everything that may be text is an attack."""
    toy_study(directory, trials=8, confirm=False)
    failure = Failure(HOSTILE, HOSTILE, HOSTILE)
    with Store.open(directory, write=True) as store:
        for status in (TrialStatus.FAILED, TrialStatus.SCREENED):
            add(store, status=status, failure=failure, metrics={})
        number = len(store.proposals())
        evil = Pipeline((StageSpec(HOSTILE, {HOSTILE: HOSTILE}),))
        store.propose(Proposal(number, evil))
        metrics = smaller(store, 1e-3)
        store.add(
            replace(
                store.trial(0),
                number=number,
                pipeline=evil,
                origin=Origin(("given",)),
                metrics=metrics,
                test={},
            )
        )  # type: ignore[arg-type]
        store.propose(Proposal(number + 1, Pipeline((StageSpec(HOSTILE),))))
        title = HOSTILE.replace("\u202e", "")
        store.set_note("task", {"metric": title, "maximize": True})
        store.set_note("stop_reason", HOSTILE)
        store.set_note("unconfirmed", {str(number): HOSTILE})
    assert QUALITY in metrics
    return directory
