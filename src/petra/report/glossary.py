"""What the report's own words mean, said once and linked from where they stand."""

from __future__ import annotations

import re
from collections.abc import Mapping

from petra.core.metric import Metric, describe
from petra.front import Front
from petra.report.metric_text import metric_words
from petra.report.page import esc
from petra.space.table import MOVES

TERMS: Mapping[str, str] = {
    "trial": "One candidate: a pipeline of stages applied to the model, exported to a file and"
    " measured as that file. Trials are numbered in the order in which they were proposed.",
    "untouched model": "The model as it was given, exported and measured like every trial. It is"
    " trial 0, and what all others are compared with.",
    "front": "The trials worth choosing from: within the constraints, and no other trial is at"
    " least as good in every objective and better in one. Going from one member to another, you"
    " gain something and pay for it with something else.",
    "dominated": "Some member of the front is nowhere worse and somewhere better, so there is no"
    " reason to ship this one. Timings closer than 1% count as equal.",
    "infeasible": "Measured, but outside of a constraint that you set.",
    "screened": "Left early, before it was trained, exported or timed in full, because what was"
    " known by then left it no chance.",
    "failed": "A stage refused the model, the file did not compute what the PyTorch model computes,"
    " or it took too long.",
    "partly evaluated": "Trained for a part of its epochs or on a part of the data, to find out"
    " cheaply whether the whole is worth it. Never compared with full evaluations.",
    "knee": "The member from which on a little more of one objective costs much of another: the"
    " one to begin with when nothing else decides.",
    "smallest": "The member with the fewest bytes.",
    "fastest": "The member of best quality among those that no timing can tell from the lowest"
    " latency.",
    "best": "The member of best quality on the validation split.",
    "validation": "The split of the data that the search looked at. Choosing by it makes it a"
    " little too friendly: the test split is the honest one.",
    "test": "The split that was read once, for models already chosen.",
    "confirmed": "Members of the front are measured again when the search has ended: on the test"
    " split, and for speed in three fresh launches. From then on, that is their figure everywhere"
    " in this report; what the search had measured stands only in the trial's own view, and is"
    " called so.",
    "times the untouched model's": "Measured in turns with the untouched model in one process, so"
    " that what else the machine does meets both. It carries to other days and machines better than"
    " milliseconds, which are those of one moment: dividing one trial's by another's can give"
    " another number.",
    "±": "One standard error: with repeated measurements, two times out of three the mean would lie"
    " that near.",
    "95% interval": "Where the true value lies with 95% confidence, as far as the items or launches"
    " measured can tell.",
    "hypervolume": "One number for how good all trials together are: how much of the space of"
    " possible figures some trial reaches or beats, counted from a corner a little worse than the"
    " untouched model (a tenth more of each cost, or the constraint on quality). It rises when a"
    " trial beats all others somewhere; when it has stopped to rise, more time finds little.",
    "objective": "What the search makes better: less or more of a metric.",
    "constraint": "A bound that you set. What lies outside is never offered.",
    "parity": "How far the exported file's outputs are from the PyTorch model's, on validation"
    " items.",
    "move": "How the search made a new pipeline from an old one.",
}
"""What a word means, in the order in which they are listed."""

ORIGINS: Mapping[str, str] = {
    "baseline": "the untouched model",
    "given": "written by you (space.initial)",
    "recipe": "one of petra's own pipelines to begin with",
    "past": "from the front of a past study",
    "initial": "one of the first pipelines of the search",
    "random": "drawn at random",
    "sampled": "drawn by Optuna's sampler",
    "improvement": "where a model of the results expects the front to grow most",
    "promoted": "a trial that did well at less effort, evaluated with more",
}
"""Where a pipeline comes from that no move made."""


def origin_doc(name: str) -> str:
    """What a move or an origin is; '' for one that nobody has described."""
    if name in ORIGINS:
        return ORIGINS[name]
    return MOVES.get(name).doc if name in MOVES else ""


def anchor(word: str) -> str:
    """The id of a word in the page."""
    return f"term-{re.sub(r'[^a-z0-9]+', '-', word.lower()).strip('-') or 'plus-minus'}"


def term(word: str, shown: str = "") -> str:
    """A word as a link to what it means, which is also its tooltip. KeyError for no `TERMS`."""
    return (
        f'<a class=term href="#{anchor(word)}" title="{esc(TERMS[word])}">{esc(shown or word)}</a>'
    )


def glossary_section(front: Front) -> str:
    """All words, and the metrics of this study."""
    words = [_item(anchor(word), word, esc(text)) for word, text in TERMS.items()]
    metrics = [
        _item(f"metric-{metric.name}", metric_words(metric), _doc(metric))
        for metric in _metrics(front)
    ]
    items = "".join(words + metrics)
    return f"<h2 id=glossary>Words used here</h2><dl class=glossary>{items}</dl>"


def _item(name: str, word: str, text: str) -> str:
    return f'<div id="{esc(name)}"><dt>{esc(word)}</dt><dd>{text}</dd></div>'


def _metrics(front: Front) -> list[Metric]:
    """All that the untouched model or some member has."""
    shown = [*front.members, *([front.baseline] if front.baseline else [])]
    measured = {name for trial in shown for name in (*trial.metrics, *trial.test)}
    known = front.catalogue
    return [known[name] for name in known.names() if name in measured]


def _doc(metric: Metric) -> str:
    """What a metric is, and by which name a study file asks for it."""
    doc = describe(metric.name).doc
    told = f"{doc[0].upper()}{doc[1:]}; " if doc else ""
    return f"{esc(told)}<code>{esc(metric.name)}</code> in study files."
