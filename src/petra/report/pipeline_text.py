"""A pipeline in words, short enough for a table: what each stage is, and the parameters that tell
most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.core.text import printable
from petra.core.trial import Fidelity, StageTrace, Trial
from petra.store.stored_trials import reduced_of, statuses_of

# Sizes of parts that are not there where they are 0.
_SIZES = ("serial", "parallel", "prefix", "lora", "prompt")
# Parameter names that say most about what a stage does, in the order in which they are shown. A
# stage that has none of them shows its first parameters, so a plugin's stage reads well enough
# without being listed anywhere.
_TELLING = (
    *_SIZES,
    "ratio",
    "rank",
    "energy",
    "bits",
    "epochs",
    "importance",
    "rule",
    "observer",
    "features",
    "lr",
)
_SHOWN = 2
_COMPARED = 32  # pipelines of the same words that one is told apart from
UNTOUCHED = "untouched model"


def _said(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return name
    if isinstance(value, str):
        return value if name in _TELLING else f"{name} {value}"
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


def stage_in_words(stage: StageSpec, also: Sequence[str] = ()) -> str:
    """'prune.structured (ratio 0.4, taylor)', and the parameters named in `also`, in full."""
    absent = {name for name in _SIZES if not stage.params.get(name)}
    names = [name for name in _TELLING if name in stage.params and name not in absent]
    names = names or [
        name for name, value in stage.params.items() if value is not False and value != "none"
    ]
    said = [_said(name, stage.params[name]) for name in names[:_SHOWN] if name not in also]
    said += [_in_full(name, stage.params.get(name)) for name in also]
    return printable(f"{stage.kind} ({', '.join(said)})" if said else stage.kind)


def _in_full(name: str, value: Value | None) -> str:
    if value is None or value is False:
        return f"no {name}"
    return name if value is True else f"{name} {value}"


def pipeline_in_words(pipeline: Pipeline) -> str:
    """Stages joined by arrows; 'untouched model' for the empty pipeline."""
    return " → ".join(map(stage_in_words, pipeline)) if pipeline.stages else UNTOUCHED


def told_apart(pipeline: Pipeline, others: Iterable[Pipeline]) -> str:
    """`pipeline_in_words`, with the fewest further parameters that tell it from those of `others`
    that are the same in words, of so many that are worth it. O(others x parameters).
    """
    words = pipeline_in_words(pipeline)
    alike = (o for o in others if o != pipeline and pipeline_in_words(o) == words)
    rest = list(islice(alike, _COMPARED))
    chosen: dict[int, list[str]] = {}
    while rest:
        differing = Counter(key for other in rest for key in _differences(pipeline, other))
        if not differing:
            break
        at, name = max(
            differing, key=lambda k: (differing[k], k[1] in pipeline.stages[k[0]].params, -k[0])
        )
        chosen.setdefault(at, []).append(name)
        rest = [other for other in rest if (at, name) not in _differences(pipeline, other)]
    if not chosen:
        return words
    stages = enumerate(pipeline)
    return " → ".join(stage_in_words(stage, chosen.get(i, ())) for i, stage in stages)


def _differences(one: Pipeline, other: Pipeline) -> list[tuple[int, str]]:
    """Stage by stage, the parameters in which two pipelines of the same kinds of stages differ."""
    return [
        (i, name)
        for i, (a, b) in enumerate(zip(one, other, strict=False))
        for name in sorted({*a.params, *b.params})
        if a.params.get(name) != b.params.get(name)
    ]


def all_told_apart(pipelines: Iterable[Pipeline]) -> dict[Pipeline, str]:
    """Each of them as `told_apart` from the others."""
    alike: dict[str, list[Pipeline]] = {}
    for pipeline in dict.fromkeys(pipelines):
        alike.setdefault(pipeline_in_words(pipeline), []).append(pipeline)
    return {one: told_apart(one, group) for group in alike.values() for one in group}


def trace_in_words(trace: StageTrace) -> str:
    """What one stage really did: '14 layers touched, 2 skipped, parameters 270 k → 190 k, 8.1
    s'.
    """
    from petra.report.numbers_text import duration, si

    parts = [f"{len(trace.touched)} layer{'' if len(trace.touched) == 1 else 's'} touched"]
    if trace.skipped:
        parts.append(f"{len(trace.skipped)} skipped")
    if trace.params_after != trace.params_before:
        parts.append(f"parameters {si(trace.params_before)} → {si(trace.params_after)}")
    adapted = trace.details.get("adapt")
    if isinstance(adapted, Mapping):
        inserted, head = (
            number if isinstance(number := adapted.get(name), int | float) else 0
            for name in ("trainable_parameters", "head_parameters")
        )
        parts.append(f"{si(inserted)} parameters of modules trained, {si(head)} of the head")
    if trace.uncached:
        parts.append(f"not cached: {printable(trace.uncached)}")
    parts.append("taken from the cache" if trace.cached else duration(trace.seconds))
    return ", ".join(parts)


def fidelity_in_words(fidelity: Fidelity) -> str:
    """'' for a full evaluation, else such as 'zero shot', '0.11 of epochs', '0.5 of data'."""
    if fidelity.zero_shot:
        return "zero shot"
    shares = (("epochs", fidelity.epochs), ("data", fidelity.data))
    return ", ".join(f"{share:.2g} of {name}" for name, share in shares if share < 1)


def count_statuses(trials: Sequence[Trial]) -> str:
    """'12 complete, 3 infeasible, 2 failed' of the candidates among `trials` (not the untouched
    model), and how many of the measured ones were at a reduced fidelity.
    """
    counts = statuses_of(trials)
    order = ("complete", "infeasible", "screened", "failed", "timed_out")
    known = [name for name in order if name in counts] + sorted(set(counts) - set(order))
    words = [f"{counts[name]} {name.replace('_', ' ')}" for name in known]
    reduced = reduced_of(trials)
    words += [f"{reduced} of them at reduced fidelity"] if reduced else []
    return ", ".join(words) or "no trials"
