"""A candidate with its modules apart, built for its latency alone."""

from __future__ import annotations

from pathlib import Path

from petra.core.pipeline import Pipeline
from petra.core.target import Target
from petra.core.trial import Fidelity
from petra.execute.build import BuildPayload, Note, compressed, exported
from petra.execute.built import UNMERGED, BuiltFile

LATENCY = {"latency_ms": "latency_unmerged_ms", "latency_ratio": "latency_unmerged_ratio"}
"""What is measured of it, and the metrics that this is."""


def with_modules_apart(pipeline: Pipeline) -> Pipeline | None:
    """The pipeline whose stages leave what they insert beside the layers (`merge`); None where it
    is the same.
    """
    apart = [s.replace(merge=False) if s.params.get("merge") is True else s for s in pipeline]
    found = Pipeline(tuple(apart))
    return None if found == pipeline else found


def export_unmerged(
    payload: BuildPayload,
    note: Note,
    pipeline: Pipeline,
    exports: tuple[tuple[Target, Path], ...],
) -> tuple[BuiltFile, ...] | None:
    """Files for the first target, in the directory `UNMERGED` of its place: none where they would
    be the same, None where nobody asks for their latency. They are untrained, and as fast as
    trained ones. Raises what stages and export raise.
    """
    apart = with_modules_apart(pipeline)
    if apart is None:
        return ()
    if not set(LATENCY.values()) & set(payload.metrics):
        return None
    target, place = exports[0]
    model, _ = compressed(payload, note, apart, Fidelity(zero_shot=True))
    return tuple(map(BuiltFile.of, exported(model, payload, target, place / UNMERGED)))
