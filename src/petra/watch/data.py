"""What the page is told, as plain data: texts and numbers that it shows and never interprets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from petra.core.metric import QUALITY, Metric
from petra.core.text import printable
from petra.core.trial import Trial
from petra.front import Front, figures
from petra.report.card import subject
from petra.report.doubts import doubts
from petra.report.numbers_text import change, duration, value_of, with_error
from petra.report.pipeline_text import count_statuses, pipeline_in_words
from petra.watch.drawing import front_plots, growth, volume_plots
from petra.watch.look import Look, Seen
from petra.watch.state import State, advice, headline, how_far, progress, state_of, who
from petra.watch.words import endings, latest, outcome, running

LATEST = 20  # trials that are listed
MOST_REASONS = 50
MOST_GROWTH = 50
_LONGEST = 2000  # characters of a text

Cells = list[list[str]]


def now_data(look: Look, trouble: str = "") -> dict[str, Any]:
    """What changes from second to second. `trouble` is why the study itself cannot be shown."""
    state, done, seen = state_of(look), progress(look), look.seen
    hands = running(look)
    waiting = len(seen.waiting) - sum(r.number in _numbers(seen) for r in hands) if seen else 0
    return {
        "state": state.value,
        "alive": look.holder is not None,
        "title": _text(subject(seen.record)) if seen else "no study",
        "headline": _text(trouble or headline(look)),
        "advice": _text(advice(look)),
        "who": _text(who(look)),
        "progress": how_far(look) if seen else "",
        "fraction": 1.0 if state is State.FINISHED else done.fraction,
        "running": [
            [
                str(r.number),
                _text(r.doing),
                "" if r.for_s is None else duration(r.for_s),
                _text(r.words),
            ]
            for r in hands
        ],
        "waiting": max(0, waiting),
        "heading": _heading(look),
    }


def _heading(look: Look) -> str:
    if look.holder:
        return "Under way"
    return "Under way when it was cut off" if look.activity else "Not evaluated"


def _numbers(seen: Seen) -> set[int]:
    return {p.number for p in seen.waiting}


def study_data(seen: Seen) -> dict[str, Any]:
    """What changes with every trial. Raises PetraError for figures that nothing can be made of."""
    from petra.report.history import hypervolume_reached

    front, trials = seen.front, seen.trials
    reached = hypervolume_reached(front)
    grown = growth(reached)
    return {
        "directory": _text(seen.record.directory),
        "aims": _text(_aims(front)),
        "tiles": _tiles(front, trials, grown[-1][2] if grown else None),
        "front": _front_table(front),
        "empty": _text(front.why_empty()),
        "doubts": [_text(line) for line in _remarks(front)],
        "plots": front_plots(front, trials),
        "volume": volume_plots(reached),
        "growth": [
            [str(n), str(t.number), _time(t.finished_at), f"{volume:.4f}"]
            for n, t, volume in grown[-MOST_GROWTH:][::-1]
        ],
        "endings": [
            [e.how, _text(e.why), str(e.count), _example(e.example, front)]
            for e in endings(trials, front)[:MOST_REASONS]
        ],
        "latest": [_latest_row(t, front) for t in latest(trials, LATEST)],
    }


def _example(trial: Trial, front: Front) -> str:
    return _text(f"trial {trial.number}: {outcome(trial, front)}")


def _aims(front: Front) -> str:
    wanted = ", ".join(
        f"{'more' if o.maximize else 'less'} {_label(front, o.metric)}" for o in front.objectives
    )
    demanded = "; ".join(map(str, front.constraints))
    return f"Wanted: {wanted}. " + (f"Demanded: {demanded}." if demanded else "No constraints.")


def _label(front: Front, name: str) -> str:
    return front.catalogue[name].column


def _tiles(front: Front, trials: Sequence[Trial], volume: float | None) -> Cells:
    searched = sum(t.number > 0 for t in trials)
    compressed = sum(t.number > 0 for t in front.members)
    tiles = [
        [str(searched), f"trials: {count_statuses(list(trials))}"],
        [str(compressed), "compressed models on the front"],
    ]
    if volume is not None:
        tiles.append([f"{volume:.4f}", "hypervolume: how much of what is wanted the front attains"])
    if base := front.baseline:
        quality = with_error(base.metrics[QUALITY])
        tiles.append([quality, f"{_text(front.metric)} of the untouched model, validation"])
        size = value_of(front.catalogue["size_bytes"], base.metrics.get("size_bytes"))
        tiles.append([size, "its size"])
    return tiles


def _remarks(front: Front) -> list[str]:
    unconfirmed = [f"Trial {n} is not confirmed: {why}" for n, why in front.unconfirmed.items()]
    return [*unconfirmed, *(f"Trial {line}." for line in doubts(front))]


# ---- tables --------------------------------------------------------------------------------------


def _front_table(front: Front) -> dict[str, Any]:
    """The untouched model and the members of the front, numbers as people read them."""
    base = front.baseline
    if base is None:
        return {"columns": [], "rows": []}
    labels = front.labels()
    columns = _columns(front)
    rows = [base, *(t for t in front.members if t is not base)]
    return {
        "columns": ["trial", *(title for title, _ in columns), "picked as", "pipeline"],
        "rows": [
            [
                str(t.number),
                *(_text(cell(t)) for _, cell in columns),
                ", ".join(labels.get(t.number, [])),
                _text(pipeline_in_words(t.pipeline)),
            ]
            for t in rows
        ],
    }


def _columns(front: Front) -> list[tuple[str, Callable[[Trial], str]]]:
    """What the task measures, then costs that stand in every table and further objectives."""
    known = front.catalogue
    scores = [known[QUALITY], *known.others()]
    tested = any(t.test for t in front.members)
    columns = []
    for metric in scores:
        columns.append((f"{metric.title}, validation", _score(metric, "metrics")))
        if tested:
            columns.append((f"{metric.title}, test", _score(metric, "test")))
    wanted = {o.metric for o in front.objectives} | {c.metric for c in front.constraints}
    always = ("latency_ms", "latency_ratio", "size_bytes")
    costs = [m for m in known.costs() if m.name in always or m.name in wanted]
    return [*columns, *((metric.column, _cost(metric, front)) for metric in costs)]


def _score(metric: Metric, split: str) -> Callable[[Trial], str]:
    def cell(trial: Trial) -> str:
        found = getattr(trial, split).get(metric.name)
        return with_error(found) if found else "not read"

    return cell


def _cost(metric: Metric, front: Front) -> Callable[[Trial], str]:
    base = front.baseline

    def cell(trial: Trial) -> str:
        mine = figures(trial).get(metric.name)
        text = value_of(metric, mine)
        old = figures(base).get(metric.name) if base else None
        if trial is base or mine is None or old is None or metric.form == "ratio":
            return text
        moved = change(mine.mean, old.mean)
        return f"{text} ({moved})" if moved else text

    return cell


def _latest_row(trial: Trial, front: Front) -> list[str]:
    on_front = any(t.number == trial.number for t in front.members)
    how = trial.status.value.replace("_", " ") + (", on the front" if on_front else "")
    return [
        str(trial.number),
        how,
        _text(outcome(trial, front)),
        _time(trial.seconds),
        _time(trial.finished_at),
        _text(pipeline_in_words(trial.pipeline)),
    ]


def _time(seconds: float) -> str:
    return duration(seconds).replace(" ", "\u00a0")  # not to be broken


def _text(text: object) -> str:
    """Text on one line in which every character can be seen, and not without end."""
    found = printable(text)
    return found if len(found) <= _LONGEST else f"{found[:_LONGEST]} ..."
