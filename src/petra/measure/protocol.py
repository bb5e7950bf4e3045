"""How latency and throughput are timed: paired, warmed up, blocks alternating, until the ratio is
known as well as it matters.

A shared machine drifts by tens of percent within minutes, so a candidate's own milliseconds say
little. Baseline and candidate are therefore timed in alternating blocks in one process, and each
pair of neighbouring blocks gives one sample of the ratio, in which the drift cancels. How a launch
differs from the next, no number of rounds tells (`petra.measure.launches`): they end before they
are much finer than that.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from petra.core.measurement import Measurement

Run = Callable[[], object]


@dataclass(frozen=True)
class Protocol:
    """When to stop: at least `min_rounds`, at most `max_rounds` or `seconds`, once the ratio is
    `settled`, to a standard error of `precision` of the ratio at the finest. A block is as many
    calls as take about `block_ms`.
    """

    min_rounds: int = 10
    max_rounds: int = 60
    seconds: float = 4.0
    precision: float = 0.005
    block_ms: float = 15.0
    warmup: int = 5


SEARCH = Protocol()
# For what is decided with a margin: a few rounds, a few percent.
COARSE = Protocol(min_rounds=5, max_rounds=10, seconds=1.0, precision=0.03)
CONFIRM = Protocol(min_rounds=15, max_rounds=60, precision=0.004)  # each of several launches
SHARE_OF_SPREAD = 1 / 3  # finer rounds would shorten the whole interval by less than 5%
APART = 3.0
"""Standard errors from the ratio to a threshold that is decided: more than the 1.96 of an interval,
because it is looked at after every round.
"""


@dataclass(frozen=True)
class Race:
    """What a ratio is timed for. `thresholds` are the ratios on one side of which the candidate is
    worth another thing than on the other (None: it is timed for its own sake); `spread` is the
    relative standard deviation between launches.
    """

    thresholds: tuple[float, ...] | None = None
    spread: float = 0.0


def settled(ratio: Measurement, race: Race, precision: float) -> bool:
    """Whether further rounds are not worth their time: the ratio is as precise as is asked, or as a
    launch can be; or it is clear of all thresholds, with what launches differ by.
    """
    if ratio.stderr <= max(precision, SHARE_OF_SPREAD * race.spread) * ratio.mean:
        return True
    if race.thresholds is None:
        return False
    reach = APART * math.hypot(ratio.stderr, race.spread * ratio.mean)
    return all(abs(ratio.mean - threshold) > reach for threshold in race.thresholds)


@dataclass(frozen=True)
class Paired:
    """Seconds per call of both sides (all calls), and one ratio candidate / baseline per round."""

    baseline_s: tuple[float, ...]
    candidate_s: tuple[float, ...]
    ratios: tuple[float, ...]


def _block(run: Run, calls: int, into: list[float]) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    into.extend(times)
    return statistics.median(times)


def _calls_per_block(run: Run, protocol: Protocol) -> int:
    for _ in range(protocol.warmup):
        run()
    times: list[float] = []
    once = _block(run, 3, times)
    return max(1, min(50, round(protocol.block_ms / 1000 / max(once, 1e-7))))


def time_paired(
    baseline: Run, candidate: Run, protocol: Protocol, race: Race | None = None
) -> Paired:
    """Time two callables against each other in alternating blocks, flipped every round."""
    race = race or Race()
    calls = {"b": _calls_per_block(baseline, protocol), "c": _calls_per_block(candidate, protocol)}
    runs, seconds = {"b": baseline, "c": candidate}, {"b": list[float](), "c": list[float]()}
    ratios: list[float] = []
    deadline = time.perf_counter() + protocol.seconds
    while len(ratios) < protocol.max_rounds:
        order = "bc" if len(ratios) % 2 == 0 else "cb"
        median = {side: _block(runs[side], calls[side], seconds[side]) for side in order}
        ratios.append(median["c"] / median["b"])
        if len(ratios) >= protocol.min_rounds:
            ratio = ratio_measurement(tuple(ratios), host="")
            if settled(ratio, race, protocol.precision) or time.perf_counter() > deadline:
                break
    return Paired(tuple(seconds["b"]), tuple(seconds["c"]), tuple(ratios))


def ratio_measurement(ratios: tuple[float, ...], *, host: str) -> Measurement:
    """Median of the rounds' ratios, robust to a round that was disturbed, with the standard error
    of a median (1.2533 sigma / sqrt(n) for normal noise, sigma from the median absolute deviation).
    """
    centre = statistics.median(ratios)
    deviation = 1.4826 * statistics.median(abs(r - centre) for r in ratios)
    return Measurement(centre, 1.2533 * deviation / math.sqrt(len(ratios)), len(ratios), "x", host)


def percentile(samples: tuple[float, ...], q: float) -> float:
    """Linear-interpolated percentile, q in 0..100."""
    ordered = sorted(samples)
    at = (len(ordered) - 1) * q / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def latency_measurements(paired: Paired, *, host: str) -> dict[str, Measurement]:
    """latency_ms (p50), latency_p95_ms and latency_ratio of the candidate."""
    n = len(paired.candidate_s)
    spread = 1.4826 * statistics.median(
        abs(s - statistics.median(paired.candidate_s)) for s in paired.candidate_s
    )
    return {
        "latency_ms": Measurement(
            1e3 * statistics.median(paired.candidate_s),
            1e3 * 1.2533 * spread / math.sqrt(n),
            n,
            "ms",
            host,
        ),
        "latency_p95_ms": Measurement(1e3 * percentile(paired.candidate_s, 95), 0.0, n, "ms", host),
        "latency_ratio": ratio_measurement(paired.ratios, host=host),
    }


def throughput_measurements(paired: Paired, batch: int, *, host: str) -> dict[str, Measurement]:
    """throughput (items/s from the median call) and throughput_ratio (candidate over baseline)."""
    per_call = statistics.median(paired.candidate_s)
    ratio = ratio_measurement(tuple(1 / r for r in paired.ratios), host=host)
    relative = ratio.stderr / ratio.mean
    n = len(paired.candidate_s)
    return {
        "throughput": Measurement(
            batch / per_call, relative * batch / per_call, n, "items/s", host
        ),
        "throughput_ratio": ratio,
    }
