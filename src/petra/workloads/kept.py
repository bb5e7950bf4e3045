"""What is kept of a reference model beside its weights, read without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from petra.core.measurement import Measurement
from petra.core.metric import QUALITY
from petra.workloads.places import cache_folder


def kept_score(
    stem: str,
    metric: str,
    settings: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
) -> Measurement | None:
    """What the model called `stem` that was trained last reaches on its test split by `metric`, of
    those whose recipe has these `settings`; None where none is kept.
    """
    for path in _newest_first(stem, Path(cache) if cache else cache_folder()):
        if (score := _score_in(path, metric, settings or {})) is not None:
            return score
    return None


def _newest_first(stem: str, folder: Path) -> Iterator[Path]:
    found = [p for p in folder.glob("*.safetensors") if p.name.rpartition("-")[0] == stem]
    yield from sorted(found, key=_written_at, reverse=True)


def _written_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0  # deleted since it was listed


def _score_in(path: Path, metric: str, settings: Mapping[str, Any]) -> Measurement | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            facts = file.metadata() or {}
        recipe = json.loads(facts["recipe"])
        if any(recipe[name] != value for name, value in settings.items() if name in recipe):
            return None
        known = json.loads(facts["scores"])["test"]
        found = known[QUALITY if facts["metric"] == metric else metric]
        return Measurement(float(found["mean"]), float(found["stderr"]), int(found["n"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
        return None  # from before scores were kept, or not a file of ours
