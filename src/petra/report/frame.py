"""The front as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petra.core.trial import Trial
from petra.front import Front, confirmed
from petra.report.pipeline_text import pipeline_in_words

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    "number",
    "pipeline",
    "quality_val",
    "quality_val_se",
    "quality_test",
    "quality_test_se",
    "latency_ms",
    "latency_ratio",
    "latency_ratio_low",
    "latency_ratio_high",
    "throughput",
    "throughput_ratio",
    "size_bytes",
    "size_ratio",
    "params",
    "params_ratio",
    "macs",
    "macs_ratio",
    "memory_mb",
    "memory_ratio",
)


def front_frame(front: Front) -> pd.DataFrame:
    """One row per member: quality on both splits, costs, and each cost over the untouched model's;
    NaN if unknown.
    """
    import pandas as pd

    return pd.DataFrame([_row(t, front.baseline) for t in front.members], columns=list(_COLUMNS))


def _row(trial: Trial, baseline: Trial | None) -> dict[str, object]:
    val, test, nan = trial.metrics["quality"], trial.test.get("quality"), float("nan")
    latency = confirmed(trial, "latency_ratio")
    row: dict[str, object] = {
        "number": trial.number,
        "pipeline": pipeline_in_words(trial.pipeline),
        "quality_val": val.mean,
        "quality_val_se": val.stderr,
        "quality_test": test.mean if test else nan,
        "quality_test_se": test.stderr if test else nan,
        "latency_ratio": latency.mean,
        "latency_ratio_low": latency.interval[0],
        "latency_ratio_high": latency.interval[1],
    }
    for name in ("latency_ms", "throughput", "size_bytes", "params", "macs", "memory_mb"):
        mine = confirmed(trial, name).mean
        base = confirmed(baseline, name).mean if baseline else nan
        row[name] = mine
        if name not in ("latency_ms", "throughput"):
            row[f"{name.removesuffix('_bytes').removesuffix('_mb')}_ratio"] = (
                mine / base if base else nan
            )
    row["throughput_ratio"] = confirmed(trial, "throughput_ratio").mean
    return row
