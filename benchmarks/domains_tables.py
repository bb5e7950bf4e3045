"""The tables of `domains.md`, from its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from domains_rows import (
    DEFAULT,
    SMALL,
    TINY,
    UNQUANTIZED,
    WITHIN_1,
    WITHIN_4,
    Pick,
    Row,
    Span,
    of,
)

from petra.workloads.archives import UCR
from petra.workloads.table import WORKLOADS

UCR_SETS = tuple(f"ucr/{name}" for name in UCR)
GOALS: tuple[tuple[str, Callable[[Pick], bool]], ...] = (
    ("there at all", lambda pick: True),
    ("size <= 0.25, everywhere", lambda pick: pick.size <= 0.25),
    ("size <= 0.12, on most", lambda pick: pick.size <= 0.12),
    ("latency <= 0.6, everywhere", lambda pick: pick.latency[0] <= 0.6),
    ("latency <= 0.4, on most", lambda pick: pick.latency[0] <= 0.4),
    ("throughput >= 1.5, everywhere", lambda pick: pick.throughput[0] >= 1.5),
)


def markdown(rows: Sequence[Row], head: Sequence[str], time: str) -> str:
    """The whole file."""
    lines = [
        *head,
        (
            f"- each searched for {time} with all settings at their defaults; batch 1, 1 thread,"
            " ONNX Runtime, against the untouched fp32 model in the same runtime"
        ),
        (
            "- picks are made by validation quality and costs; figures are of the test split, with"
            " 95% intervals; changes are paired by item"
        ),
        "",
        *_summary(of(rows, DEFAULT)),
        *_picks(of(rows, DEFAULT)),
        *_inception(of(rows, DEFAULT)),
        *_regression(rows),
        *_ablation(rows),
        *_pipelines(of(rows, DEFAULT)),
        *_sources(of(rows, DEFAULT)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    """How many rows reach what was to be reached everywhere, or on most."""
    if not rows:
        return
    yield from (
        "## In short",
        "",
        "Workloads whose *best within 1%* loses no more than that on the test split, too, and is:",
        "",
        "| goal | reached |",
        "|---|---|",
    )
    near = [pick for row in rows if (pick := _kept(row)) is not None]
    for goal, met in GOALS:
        yield _row([goal, f"{sum(map(met, near))} of {len(rows)}"])
    for row in rows:
        if row.workload.startswith("cifar10") and (pick := row.picks.get(WITHIN_1)) is not None:
            smaller, lost = 1 - pick.size, -100 * pick.change[0]
            said = "met" if smaller > 0.3 and lost < 2 else "not met"
            cells = f"{said} ({smaller:.0%} smaller, {lost:+.2f} points lost)"
            yield _row([f"{row.workload}: > 30% smaller at < 2 points", cells])
    yield ""


def _kept(row: Row) -> Pick | None:
    """*best within 1%*, if it is so on the test split, too."""
    pick = row.picks.get(WITHIN_1)
    return pick if pick is not None and row.loss(pick)[0] <= 0.01 else None


def _sources(rows: Sequence[Row]) -> Iterator[str]:
    """Where the published figures are from."""
    known = [(row, WORKLOADS.get(row.workload).published) for row in rows]
    if not any(published for _, published in known):
        return
    yield from ("", "## Published figures", "", "| workload | figures | from |", "|---|---|---|")
    for row, published in known:
        if published is not None:
            yield _row([row.workload, str(published), published.source])


def _picks(rows: Sequence[Row]) -> Iterator[str]:
    yield from (
        "## Picks",
        "",
        (
            "*Goals* at a loss of 1%: size <= 0.25, latency <= 0.6, throughput >= 1.5; in brackets"
            " those missed. *Beyond PETRA*: its published figures beaten all at once, or which are"
            " not (size 0.25, latency 0.67, throughput 1.13, quality within 4%)."
        ),
        "",
        (
            "| workload | metric | untouched | published | pick | quality | change | loss | size |"
            " latency | throughput | goals | beyond PETRA |"
        ),
        "|" + "---|" * 13,
    )
    for row in rows:
        for name in (WITHIN_1, WITHIN_4):
            yield _line(row, name, row.picks.get(name))
    yield ""


def _line(row: Row, name: str, pick: Pick | None) -> str:
    cells = [row.workload, row.metric, _plus(row.baseline), _published(row), name]
    if pick is None:
        return _row([*cells, "none on the front", *[""] * 7])
    loss = row.loss(pick)
    goals = _missed(pick, loss[0], loss_at_most=0.01, size=0.25, latency=0.6, throughput=1.5)
    petra = _missed(pick, loss[0], loss_at_most=0.04, size=0.25, latency=0.67, throughput=1.13)
    return _row(
        [
            *cells,
            _plus(pick.quality),
            _signed(pick.change),
            f"{loss[0]:+.1%}",
            f"{pick.size:.3f}",
            _interval(pick.latency),
            _interval(pick.throughput),
            "" if name == WITHIN_4 else _verdict(goals, "met"),
            _verdict(petra, "beaten"),
        ]
    )


def _missed(
    pick: Pick, loss: float, *, loss_at_most: float, size: float, latency: float, throughput: float
) -> list[str]:
    return [
        word
        for word, met in (
            (f"loss {loss:.1%}", loss <= loss_at_most),
            (f"size {pick.size:.2f}", pick.size <= size),
            (f"latency {pick.latency[0]:.2f}", pick.latency[0] <= latency),
            (f"throughput {pick.throughput[0]:.2f}", pick.throughput[0] >= throughput),
        )
        if not met
    ]


def _verdict(missed: Sequence[str], met: str) -> str:
    return f"not {met} ({', '.join(missed)})" if missed else met


def _inception(rows: Sequence[Row]) -> Iterator[str]:
    """InceptionTime over the eight sets at a tenth of the bytes and a third of the latency."""
    known = {row.workload: row for row in rows if row.workload in UCR_SETS}
    if not known:
        return
    yield from (
        "## InceptionTime over the UCR sets",
        "",
        f"The member of each front that is {TINY}. Goal: 0.5 points lost in the mean.",
        "",
        "| set | points lost (95%) | size | latency |",
        "|---|---|---|---|",
    )
    losses = []
    for name in UCR_SETS:
        if name not in known:
            continue
        pick = known[name].picks.get(TINY)
        if pick is None:
            yield _row([name, "none on the front", "", ""])
            continue
        points = tuple(-100 * c for c in (pick.change[0], pick.change[2], pick.change[1]))
        losses.append(points[0])
        yield _row([name, _interval(points), f"{pick.size:.3f}", _interval(pick.latency)])
    mean = f"{fmean(losses):.2f} of {len(losses)} sets" if losses else ""
    yield from (_row([f"mean, of {len(UCR_SETS)} sets", mean, "", ""]), "")


def _regression(rows: Sequence[Row]) -> Iterator[str]:
    """Errors under the conservative preset, the default space beside it."""
    errors = [row for row in rows if not row.maximize and row.variant != UNQUANTIZED]
    if not errors:
        return
    yield from (
        "## Regression and forecasting",
        "",
        f"The member of each front that is {SMALL}. Goal: within +2% under the preset.",
        "",
        "| workload | space | untouched | error | loss (95%) | size | latency | +2% |",
        "|---|---|---|---|---|---|---|---|",
    )
    for row in sorted(errors, key=lambda row: (row.workload, row.variant)):
        pick = row.picks.get(SMALL)
        cells = [row.workload, row.variant, _plus(row.baseline)]
        if pick is None:
            yield _row([*cells, "none on the front", "", "", "", ""])
            continue
        loss, low, high = row.loss(pick)
        yield _row(
            [
                *cells,
                _plus(pick.quality),
                f"{loss:+.1%} ({low:+.1%} to {high:+.1%})",
                f"{pick.size:.3f}",
                _interval(pick.latency),
                "met" if loss <= 0.02 else "not met",
            ]
        )
    yield ""


def _ablation(rows: Sequence[Row]) -> Iterator[str]:
    """Hypervolumes of the fronts with and without quantization."""
    without = {row.workload: row for row in of(rows, UNQUANTIZED)}
    with_it = {row.workload: row for row in of(rows, DEFAULT)}
    both = [name for name in without if name in with_it]
    if not both:
        return
    yield from (
        "## Without quantization",
        "",
        (
            "Hypervolume of the front over quality, latency and size, as the search measures it;"
            " *best within 1%* of each."
        ),
        "",
        "| workload | space | hypervolume | change of quality | size | latency |",
        "|---|---|---|---|---|---|",
    )
    for name in both:
        for row in (with_it[name], without[name]):
            pick = row.picks.get(WITHIN_1)
            rest = (
                ["none on the front", "", ""]
                if pick is None
                else [_signed(pick.change), f"{pick.size:.3f}", _interval(pick.latency)]
            )
            yield _row([name, row.variant, f"{row.hypervolume:.4f}", *rest])
    yield ""


def _pipelines(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield from (
        "## Pipelines",
        "",
        "| workload | pick | trial of | pipeline |",
        "|---|---|---|---|",
    )
    for row in rows:
        for name in (WITHIN_1, WITHIN_4):
            if (pick := row.picks.get(name)) is not None:
                of_all = f"{pick.number} of {row.trials} in {row.minutes:.0f} min"
                yield _row([row.workload, name, of_all, pick.pipeline])


def _published(row: Row) -> str:
    if not row.published:
        return "none"
    return f"{row.published} ({row.place})"


def _plus(value: Span) -> str:
    return f"{value[0]:.4g} ± {(value[2] - value[0]):.2g}"


def _signed(value: Span) -> str:
    return f"{value[0]:+.2g} ({value[1]:+.2g} to {value[2]:+.2g})"


def _interval(value: Sequence[float]) -> str:
    return f"{value[0]:.2f} ({value[1]:.2f}-{value[2]:.2f})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
