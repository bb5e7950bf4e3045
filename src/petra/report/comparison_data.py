"""A comparison of studies as plain data, for JSON."""

from __future__ import annotations

from petra.report.comparable import differences
from petra.report.comparison import Compared, Comparison, Rival, Side, volume_at
from petra.report.outcomes import failure_counts
from petra.report.plain import trial_data
from petra.store.stored_trials import statuses_of


def comparison_data(found: Comparison) -> dict[str, object]:
    """All of a comparison."""
    names = [side.name for side in found.sides]
    differing = differences([side.record for side in found.sides])
    return {
        "studies": {side.name: _side(found, side) for side in found.sides},
        "differences": {
            key: dict(zip(names, values, strict=True)) for key, values in differing.items()
        },
        "compared_by": [
            {"metric": a.metric, "maximize": a.maximize} for a in found.axes.objectives
        ],
        "not_compared": dict(found.axes.left_out),
        "notes": list(found.axes.notes),
        "split": "test" if found.tested else "validation",
        "shared_constraints": [str(c) for c in found.shared],
        "reference": dict(found.reference),
    }


def _side(found: Comparison, side: Side) -> dict[str, object]:
    curve = found.curves.get(side.name, ())
    failures = failure_counts(side.record.trials)
    return {
        "directory": str(side.record.directory),
        "stop_reason": side.record.stop_reason,
        "searched_s": side.record.elapsed_s,
        "trials": dict(statuses_of(side.record.trials)),
        "failures": [
            {"stage": stage, "kind": kind, "count": count} for (stage, kind), count, _ in failures
        ],
        "untouched": trial_data(side.baseline),
        "front": [_member(one) for one in found.of(side.name)],
        "hypervolume": volume_at(curve) if curve else None,
        "progress": [vars(step) for step in curve],
    }


def _member(one: Compared) -> dict[str, object]:
    return trial_data(one.trial) | {
        "beaten_by": [_rival(r) for r in one.beaten_by],
        "no_better_than": [_rival(r) for r in one.no_better_than],
    }


def _rival(rival: Rival) -> dict[str, object]:
    return {"study": rival.study, "number": rival.number}
