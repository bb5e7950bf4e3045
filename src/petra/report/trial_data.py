"""All trials as the data of the page's script: JSON in which every text stands once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from petra.core.metric import Metric
from petra.report.entries import Entry, export_command
from petra.report.metric_text import metric_words
from petra.report.verdicts import Kind

FIELDS = (
    "number", "kind", "reason", "picks", "words", "origin", "seconds", "values", "texts",
    "figures", "steps", "exportable", "artifact",
)  # fmt: skip


class Texts:
    """A table of texts, each kept once; `Texts.of(text)` is its place."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def of(self, text: str) -> int:
        return self._places.setdefault(text, len(self._places))

    @property
    def all(self) -> list[str]:
        return list(self._places)


def trials_json(entries: Sequence[Entry], objectives: Sequence[Metric], directory: Path) -> str:
    """The data: names of fields, a row for each trial, and the texts that rows name by number."""
    texts = Texts()
    rows = [_row(entry, texts) for entry in entries]
    data = {
        "fields": FIELDS,
        "rows": rows,
        "texts": texts.all,
        "kinds": [kind.value for kind in Kind],
        "objectives": [metric_words(metric) for metric in objectives],
        "export": export_command(directory),
    }
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _row(entry: Entry, texts: Texts) -> list[object]:
    kinds = list(Kind)
    figures = [
        [texts.of(f.name), texts.of(f.value), *([texts.of(f.search)] if f.search else [])]
        for f in entry.figures()
    ]
    steps = [
        [
            texts.of(json.dumps({"stage": s.kind, "params": s.params}, ensure_ascii=False)),
            texts.of(s.trace),
            *map(texts.of, s.skipped),
        ]
        for s in entry.steps()
    ]
    values = [float(f"{m.mean:.6g}") if m and math.isfinite(m.mean) else None for m in entry.values]
    return [
        entry.number,
        kinds.index(entry.verdict.kind),
        texts.of(entry.reason),
        [texts.of(name) for name in entry.picks],
        texts.of(entry.words),
        texts.of(entry.origin),
        round(entry.trial.seconds, 1),
        values,
        [texts.of(text) for text in entry.value_texts],
        figures,
        steps,
        int(entry.exportable),
        texts.of(entry.trial.artifact),
    ]
