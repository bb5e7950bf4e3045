"""An explanation's first sentences: slower or faster by what, in float or not, how far known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from petra.core.profile import Profile, Profiled
from petra.explaining.record import FamilyRow, LayerRow

_CLOSE = 0.03  # of a latency: neither slower nor faster


def summary(
    measured: Profiled,
    layers: Sequence[LayerRow],
    operators: Sequence[FamilyRow],
    *,
    quantized: bool,
) -> tuple[str, ...]:
    """Sentences, each with its figures."""
    return (
        *_speed(measured, operators),
        *_precision(layers, quantized=quantized),
    )


def _speed(measured: Profiled, operators: Sequence[FamilyRow]) -> Iterator[str]:
    ratio, base = measured.ratio, measured.base_ms
    if ratio is not None and base is not None:
        word = (
            "as fast as"
            if abs(ratio - 1) < _CLOSE
            else "slower than"
            if ratio > 1
            else "faster than"
        )
        yield (
            f"{word.capitalize()} the untouched model, {ratio:.2f}x: {measured.mine_ms:.3g} ms a"
            f" call against {base:.3g} ms, timed in turns for this profile, batch {measured.batch},"
            f" {measured.threads} thread(s)."
        )
    else:
        yield (
            f"{measured.mine_ms:.3g} ms a call, batch {measured.batch}, {measured.threads}"
            " thread(s)."
        )
    if operators:
        first = operators[0]
        yield f"Most of the time, {first.share:.0%}, goes to {first.family}."
    moved = [row for row in operators if row.base_ms is not None]
    if not moved:
        return
    for word, row in (
        ("gained", min(moved, key=_change)),
        ("lost", max(moved, key=_change)),
    ):
        change = _change(row)
        if (change < 0) == (word == "gained") and abs(change) > 0.02 * measured.mine_ms:
            yield (
                f"Most time is {word} in {row.family}: {row.base_ms or 0:.3g} -> {row.ms:.3g} ms."
            )


def _change(row: FamilyRow) -> float:
    return row.ms - (row.base_ms or 0.0)


def _precision(layers: Sequence[LayerRow], *, quantized: bool) -> Iterator[str]:
    if not layers:
        return
    if not quantized:
        yield "Nothing was quantized: all layers compute in float because none was asked not to."
        return
    weighted = [row for row in layers if row.weights]
    if not weighted:
        yield "Which of its layers have weights cannot be read off the file: see the operators."
        return
    floats = [row for row in weighted if row.in_float]
    shares = [row.share for row in floats if row.share is not None]
    if not floats:
        yield f"All {len(weighted)} layers with weights compute in 8 bits."
        return
    taking = f"; the {len(floats)} in float take {sum(shares):.0%} of the time" if shares else ""
    yield (
        f"{len(weighted) - len(floats)} of {len(weighted)} layers with weights compute in 8 bits"
        f"{taking}."
    )


def coverage(measured: Profiled, recorded: Profile | None, off_ms: float) -> Iterator[str]:
    """How much of a call the operators explain, `recorded` as they were, before `off_ms` were taken
    off each.
    """
    if recorded is None:
        if measured.refused:
            yield f"Where the time goes is not known: {measured.refused}."
        return
    share = recorded.total_ms / measured.mine_ms
    yield (
        f"The operators add up to {recorded.total_ms:.3g} ms, {share:.0%} of a call that is not"
        f" recorded ({recorded.statistic} of {recorded.calls} calls, in steps of"
        f" {recorded.resolution_us:g} us)."
    )
    if off_ms > 0:
        yield (
            f"Recording adds to every operator: {1e3 * off_ms:.1f} us were taken off each, so that"
            " they add up to the call."
        )
