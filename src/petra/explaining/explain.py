"""Putting an explanation together: from a trial, and from what was measured of its file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from petra.core.profile import Profile, Profiled, Ran
from petra.core.text import printable
from petra.core.trial import Trial
from petra.explaining.advice import advice_for
from petra.explaining.cost import cost_of
from petra.explaining.facts import facts_of
from petra.explaining.families import family
from petra.explaining.match import Names, Order, named, quantizing, side_by_side
from petra.explaining.reasons import IN_INTEGERS, reason_for_float, unfused
from petra.explaining.record import Explanation, FamilyRow, LayerRow
from petra.explaining.recording import without_recording
from petra.explaining.summary import coverage, summary


def explained(
    subject: str, measured: Profiled, trial: Trial | None = None, orders: Sequence[Order] = ()
) -> Explanation:
    """What `measured` says of a file, and what `trial`, which it is of, knows besides; `orders` are
    those that trials of its study tell. Pure.
    """
    recorded = measured.mine
    measured, off = _without_recording(measured)
    mine, base = measured.mine, measured.base
    names = named(mine.file, trial.trace if trial else (), orders) if mine else Names()
    layers, unmatched = _layers(measured, names, trial) if mine else ((), "")
    labels = [layer.label for layer in layers]
    operators = _families(mine, base) if mine else ()
    return Explanation(
        subject=printable(subject),
        runtime=printable(f"{measured.runtime} {measured.version}".strip()),
        summary=(
            *_in_the_study(trial),
            *summary(measured, layers, operators, quantized=_quantized(trial, mine)),
            *coverage(measured, recorded, off),
        ),
        layers=layers,
        operators=operators,
        cost=cost_of(trial, mine.file if mine else None, labels),
        advice=advice_for(facts_of(trial, measured, layers, operators)),
        total_ms=mine.total_ms if mine else None,
        untraced_ms=measured.mine_ms,
        base_ms=measured.base_ms,
        ratio=measured.ratio,
        traced_ms=mine.traced_ms if mine else None,
        explained=recorded.total_ms / measured.mine_ms if recorded else None,
        recording_us=1e3 * off,
        statistic=mine.statistic if mine else "",
        calls=mine.calls if mine else 0,
        resolution_us=mine.resolution_us if mine else 0.0,
        unfused=tuple(printable(text) for text in unfused(mine, labels)) if mine else (),
        unmatched=unmatched,
        refused=printable(measured.refused),
        notes=_notes(trial, names),
    )


def _without_recording(measured: Profiled) -> tuple[Profiled, float]:
    """With what recording adds to operators taken off both files' profiles; and what that is of
    the first, in milliseconds.
    """
    mine, base, off = measured.mine, measured.base, 0.0
    if mine is not None:
        mine, off = without_recording(mine, measured.mine_ms)
    if base is not None and measured.base_ms is not None:
        base, _ = without_recording(base, measured.base_ms)
    return replace(measured, mine=mine, base=base), off


def _in_the_study(trial: Trial | None) -> Iterator[str]:
    """What decided about the candidate, which nothing here does."""
    known = {**trial.metrics, **trial.test} if trial and trial.number else {}
    if (ratio := known.get("latency_ratio")) is not None:
        low, high = ratio.interval
        yield f"The study measured {ratio.mean:.2f}x ({low:.2f}-{high:.2f}) of its latency."


def _quantized(trial: Trial | None, mine: Profile | None) -> bool:
    """Whether a stage quantized, or the file asks for integers."""
    if trial is not None and quantizing(trial.trace) is not None:
        return True
    return mine is not None and any(one.precision in IN_INTEGERS for one in mine.file.layers)


def _layers(
    measured: Profiled, names: Names, trial: Trial | None
) -> tuple[tuple[LayerRow, ...], str]:
    """The layers of the file in its order; why they have no like in the untouched model's."""
    mine, base = measured.mine, measured.base
    assert mine is not None
    pairs, unmatched = side_by_side(mine.file, base.file) if base else ({}, "")
    ran, took = _by_layer(mine)
    old = _by_layer(base)[1] if base else {}
    quantized = _quantized(trial, mine)
    rows = []
    for at, layer in enumerate(mine.file.layers):
        ms = took.get(at)
        reason = (
            reason_for_float(layer, ran.get(at), names.reasons.get(at, ""), traced=bool(trial))
            if quantized
            else ""
        )
        rows.append(
            LayerRow(
                place=at,
                name=printable(names.names.get(at, "")),
                kind=printable(layer.kind),
                weights=layer.weights,
                bytes=layer.bytes,
                asked=printable(layer.precision),
                ran=printable(ran[at].precision) if at in ran else "",
                ms=ms,
                share=ms / mine.total_ms if ms is not None and mine.total_ms else None,
                reason=printable(reason),
                base_ms=old.get(pairs[at]) if at in pairs else None,
                depthwise=layer.depthwise,
            )
        )
    return tuple(rows), unmatched


def _by_layer(profile: Profile) -> tuple[dict[int, Ran], dict[int, float]]:
    """What ran of every layer, the longest of several, and milliseconds of all of it."""
    longest: dict[int, Ran] = {}
    took: dict[int, float] = defaultdict(float)
    for one in profile.operators:
        if one.layer is not None:
            took[one.layer] += one.ms
            if one.layer not in longest or one.ms > longest[one.layer].ms:
                longest[one.layer] = one
    return longest, dict(took)


def _families(mine: Profile, base: Profile | None) -> tuple[FamilyRow, ...]:
    """Operators by what they are for, those that take longest first; with those of the untouched
    model that are not here any more.
    """
    own, old = _grouped(mine), _grouped(base) if base else {}
    total = mine.total_ms or 1.0
    rows = [
        FamilyRow(
            family=printable(name),
            count=len(own.get(name, ())),
            kinds=_kinds(own.get(name, ())),
            ms=sum(one.ms for one in own.get(name, ())),
            share=sum(one.ms for one in own.get(name, ())) / total,
            base_count=len(old.get(name, ())) if base else None,
            base_ms=sum(one.ms for one in old.get(name, ())) if base else None,
        )
        for name in dict.fromkeys((*own, *old))
    ]
    return tuple(sorted(rows, key=lambda row: (-row.ms, row.family)))


def _grouped(profile: Profile) -> Mapping[str, Sequence[Ran]]:
    found: dict[str, list[Ran]] = defaultdict(list)
    for one in profile.operators:
        found[family(one.kind)].append(one)
    return found


def _kinds(operators: Sequence[Ran]) -> tuple[str, ...]:
    """'12 QLinearConv (int8)', the most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    for one in operators:
        precision = f" ({one.precision})" if one.precision else ""
        counts[printable(f"{one.kind}{precision}")] += 1
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(f"{count} {name}" for name, count in ordered)


def _notes(trial: Trial | None, names: Names) -> tuple[str, ...]:
    """Reasons of a stage for layers that could not be told apart in the file."""
    stage = quantizing(trial.trace) if trial else None
    if stage is None or not stage.skipped:
        return ()
    known = set(names.names.values())
    rest: dict[str, list[str]] = defaultdict(list)
    for path, reason in stage.skipped.items():
        if path not in known:
            rest[reason].append(path or "the model")
    return tuple(
        printable(f"{stage.stage} left in float: {', '.join(paths[:6])}")
        + (f" and {len(paths) - 6} more" if len(paths) > 6 else "")
        + printable(f": {reason}")
        for reason, paths in rest.items()
    )
