"""What is kept of a reference model beside its weights, read without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from petra.core.measurement import Measurement
from petra.workloads.places import cache_folder


def kept_score(
    stem: str, settings: Mapping[str, Any] | None = None, cache: str | Path | None = None
) -> Measurement | None:
    """Test quality of the model called `stem` that was trained last, with those of the `settings`
    that its recipe has; None where none is kept.
    """
    for path in _newest_first(stem, Path(cache) if cache else cache_folder()):
        if (score := _score_in(path, settings or {})) is not None:
            return score
    return None


def _newest_first(stem: str, folder: Path) -> Iterator[Path]:
    found = [p for p in folder.glob("*.safetensors") if p.name.rpartition("-")[0] == stem]
    yield from sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _score_in(path: Path, settings: Mapping[str, Any]) -> Measurement | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            facts = file.metadata() or {}
        recipe = json.loads(facts["recipe"])
        known = json.loads(facts["scores"])["test"]["quality"]
        if any(recipe[name] != value for name, value in settings.items() if name in recipe):
            return None
        return Measurement(float(known["mean"]), float(known["stderr"]), int(known["n"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None  # from before scores were kept, or not a file of ours
