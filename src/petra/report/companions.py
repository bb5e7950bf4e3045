"""The texts that lie beside a model's file in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import yaml

from petra.core.digest import sha256
from petra.core.objective import Metrics
from petra.core.text import json_text
from petra.core.trial import Trial
from petra.report.card import model_card
from petra.report.evidence import Evidence
from petra.report.record import StudyRecord
from petra.report.recorded import (
    CARD_FILE,
    EVIDENCE_FILE,
    METRICS_FILE,
    PARITY_FILE,
    PIPELINE_FILE,
    SUMS_FILE,
)


def companions(
    baseline: Trial | None,
    record: StudyRecord,
    place: Path,
    shipped: list[Path],
    evidence: Evidence,
) -> dict[str, str]:
    """File name -> its content, of the model at `place` whose files are `shipped`."""
    trial = evidence.trial
    metrics = {
        "trial": trial.number,
        "metric": record.metric,
        "maximize": record.maximize,
        "metrics": [metric.as_dict() for metric in record.task],
        "files": [
            {"name": f.name, "bytes": f.stat().st_size, "sha256": sha256(f)} for f in shipped
        ],
        "inputs": [
            {"name": i.name, "dtype": i.dtype, "shape": list(i.shape)} for i in evidence.inputs
        ],
        "validation": _plain(trial.metrics),
        "test": _plain(trial.test),
        "baseline": {
            "validation": _plain(baseline.metrics if baseline else {}),
            "test": _plain(baseline.test if baseline else {}),
        },
        "target": asdict(record.config.target),
        "host": dict(record.host),
        "sums": SUMS_FILE,
    }
    parity = {
        "compared_with": "the PyTorch model this file was exported from, on validation items",
        **trial.parity,
    }
    return {
        PIPELINE_FILE: (
            f"# trial {trial.number}, read by petra.Pipeline.from_list\n"
            + yaml.safe_dump(trial.pipeline.as_list(), sort_keys=False, allow_unicode=True)
        ),
        METRICS_FILE: json_text(metrics) + "\n",
        PARITY_FILE: json_text(parity) + "\n",
        EVIDENCE_FILE: json_text(evidence.as_dict()) + "\n",
        CARD_FILE: model_card(baseline, record, place.name, evidence),
    }


def _plain(metrics: Metrics) -> Mapping[str, object]:
    return {name: m.as_dict() for name, m in metrics.items()}
