"""Quality before export: what the PyTorch model scores decides whether the rest is worth it. Runs
where candidates are built, with torch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import nn

from petra.core.errors import PetraError
from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline
from petra.core.rivals import Rivals
from petra.core.rng import generator
from petra.core.target import Target
from petra.core.trial import FULL, Fidelity
from petra.execute.build import BuildPayload, Note, compressed, export_candidate, with_seed
from petra.execute.built import Built
from petra.execute.curves import CurveWatch
from petra.execute.explain import explained
from petra.execute.judge import checked_scores, targets_file
from petra.execute.kept_modules import KeptModules
from petra.execute.prospects import Known, Left, Span, hopeless
from petra.execute.reference import predict
from petra.execute.unmerged import export_unmerged
from petra.measure.stored import load_split
from petra.methods.facts import facts_after, facts_of
from petra.space.effects import FLOAT_WEIGHTS

PART = 1024  # validation items at most
_BATCH = 256
_ERRORS = 3.0
# How far a file's quality may be from the PyTorch model's, as a share of the untouched model's: a
# little more than the parity check lets pass on many items.
FLOAT_MARGIN, QUANTIZED_MARGIN = 0.01, 0.02


@dataclass(frozen=True)
class Gate:
    """What a candidate's quality is held against: its rivals, and what is known of its costs; while
    it trains (`curves`), and when it has (`quality`). With `audit` nobody is turned away, and what
    would have been is said.
    """

    rivals: Rivals
    known: Known = field(default_factory=dict)
    audit: bool = False
    quality: bool = True
    curves: bool = True

    def watch(self, *, maximize: bool) -> CurveWatch | None:
        """What judges the last training."""
        if not self.curves:
            return None
        return CurveWatch(self.rivals, self.known, maximize=maximize, audit=self.audit)


def build_if_hopeful(
    payload: BuildPayload,
    note: Note,
    pipeline: Pipeline,
    exports: tuple[tuple[Target, Path], ...],
    fidelity: Fidelity = FULL,
    gate: Gate | None = None,
    seed: int | None = None,
) -> tuple[Built | PetraError, ...]:
    """`build_candidate` with a look at the quality between stages and export: on the validation
    split, or on `PART` items of it drawn at random. Costs a pass of the PyTorch model over them.
    Where the error of a candidate rose much, its trace explains it (`explained`).

    Another `seed` than the study's neither reads nor fills its cache. Raises Left, and what
    `build_candidate` raises.
    """
    started = time.perf_counter()
    payload = with_seed(payload, seed)
    watch = gate.watch(maximize=payload.task.maximize) if gate else None
    kept = KeptModules()
    model, trace = compressed(payload, note, pipeline, fidelity, watch, kept)
    if fidelity.full:
        trace = explained(payload.model, model, payload.task, trace)
    found = watch.found if watch else None
    if gate is not None and gate.quality and not found:
        scores, share = torch_scores(payload, model)
        quantized = FLOAT_WEIGHTS not in facts_after(pipeline, facts_of(payload.model))
        spans = spans_of(scores, gate.rivals, share=share, quantized=quantized)
        if found := hopeless({**gate.known, **spans}, gate.rivals):
            found = replace(found, kind="quality")
            if not gate.audit:
                raise Left(found, scores, trace)
    made = export_candidate(payload, note, pipeline, exports, model, trace, kept, started=started)
    unmerged = export_unmerged(payload, note, pipeline, exports)
    return tuple(
        replace(b, hopeless=found, unmerged=unmerged) if isinstance(b, Built) else b for b in made
    )


def torch_scores(payload: BuildPayload, model: nn.Module) -> tuple[dict[str, Measurement], float]:
    """All that the task measures of the PyTorch model, and on which share of the validation split.

    The items are the same for all candidates of a study.
    """
    split = load_split(payload.data / "val")
    targets = np.load(targets_file(payload.data, "val"), allow_pickle=False)
    n = len(split.items)
    part = np.arange(n)
    if n > PART:
        drawn = generator(payload.seed, "quality gate").choice(n, PART, replace=False)
        part = np.sort(drawn)
    places = (np.arange(i, min(i + _BATCH, len(part))) for i in range(0, len(part), _BATCH))
    batches = ((place, split.items.batch(part[place])) for place in places)
    example = payload.task.example(2)
    predicted = predict(model, batches, example, split.interface, len(part))
    return checked_scores(payload.task, predicted, targets[part], part), len(part) / n


def spans_of(
    scores: Mapping[str, Measurement], rivals: Rivals, *, share: float, quantized: bool
) -> dict[str, Span]:
    """Where the file's scores on the whole split will be: within three standard errors of what was
    left out (none, where nothing was), and what export and integer kernels may change.

    Scores on a part without a standard error say nothing.
    """
    margin = QUANTIZED_MARGIN if quantized else FLOAT_MARGIN
    found = {}
    for name, score in scores.items():
        if name not in rivals.baseline or (share < 1 and not score.stderr):
            continue
        error = _ERRORS * score.stderr * math.sqrt(1 - share)
        error += margin * abs(rivals.baseline[name].mean)
        found[name] = Span(score.mean - error, score.mean + error)
    return found
