"""The front as a data frame."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from petra.core.metric import QUALITY, Metric
from petra.core.objective import asked_of
from petra.core.trial import Trial
from petra.front import Front, figures
from petra.report.pipeline_text import pipeline_in_words

if TYPE_CHECKING:
    import pandas as pd

_UNITS = ("_bytes", "_mb", "_ms", "_s")


def front_frame(front: Front) -> pd.DataFrame:
    """One row per member: quality on both splits, costs, and each cost over the untouched model's;
    NaN if unknown.
    """
    import pandas as pd

    rows = [_row(front, t) for t in front.members]
    known = _row(front, front.baseline) if front.baseline else {}
    return pd.DataFrame(rows, columns=list(known) or None)


def _row(front: Front, trial: Trial) -> dict[str, object]:
    row: dict[str, object] = {
        "number": trial.number,
        "pipeline": pipeline_in_words(trial.pipeline),
    }
    for name in (QUALITY, *(metric.name for metric in front.catalogue.others())):
        for split, found in (("val", trial.metrics.get(name)), ("test", trial.test.get(name))):
            row[f"{name}_{split}"] = found.mean if found else math.nan
            row[f"{name}_{split}_se"] = found.stderr if found else math.nan
    costs = front.catalogue.costs()
    paired = {metric.over for metric in costs}
    asked = asked_of(front.objectives, front.constraints)
    named = {metric.name for metric in front.catalogue.costs_on("page", asked)}
    for metric in costs:
        if not named & {metric.name, metric.over}:
            continue
        row |= _cost(metric, trial, front.baseline, paired=metric.name in paired)
    return row


def _cost(
    metric: Metric, trial: Trial, baseline: Trial | None, *, paired: bool
) -> dict[str, object]:
    """A cost, and its ratio to the untouched model's where that is not measured in pairs."""
    name = metric.name
    mine = figures(trial).get(name)
    if mine is None:
        return {name: math.nan}
    cells: dict[str, object] = {name: mine.mean}
    if metric.form == "ratio" and metric.shown.page:
        cells |= {f"{name}_low": mine.interval[0], f"{name}_high": mine.interval[1]}
    elif metric.form != "ratio" and not paired:
        old = figures(baseline).get(name) if baseline else None
        stem = next((name.removesuffix(u) for u in _UNITS if name.endswith(u)), name)
        cells[f"{stem}_ratio"] = mine.mean / old.mean if old and old.mean else math.nan
    return cells
