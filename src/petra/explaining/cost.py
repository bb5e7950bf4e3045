"""What a candidate cost, from what its trial knows and its file holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from petra.core.metric import CHANGE, QUALITY
from petra.core.profile import FileContents
from petra.core.text import first_line, printable
from petra.core.trial import EXPLAINED, StageTrace, Trial
from petra.explaining.record import Cost

_SHOWN = 8


def cost_of(trial: Trial | None, contents: FileContents | None, labels: Sequence[str]) -> Cost:
    """The parts that are known of it. `labels` are those of the file's layers."""
    tensors = tuple(_tensors(contents, labels)) if contents else ()
    if trial is None:
        return Cost(tensors=tensors)
    splits = (("validation", trial.metrics), ("test", trial.test))
    training = trial.metrics.get("train_s")
    return Cost(
        quality=tuple(
            (split, found[QUALITY + CHANGE]) for split, found in splits if QUALITY + CHANGE in found
        ),
        stages=tuple((printable(one.stage), stage_cost(one)) for one in trial.trace),
        train_s=training.mean if training else None,
        tensors=tensors,
    )


def _tensors(contents: FileContents, labels: Sequence[str]) -> Iterator[tuple[str, int, float]]:
    for tensor in contents.tensors[:_SHOWN]:
        sizes = "x".join(map(str, tensor.shape)) or "one number"
        of = (
            labels[tensor.layer]
            if tensor.layer is not None and tensor.layer < len(labels)
            else tensor.reader or "no layer"
        )
        what = printable(f"{tensor.dtype} {sizes} of {of}")
        yield what, tensor.bytes, tensor.bytes / max(1, contents.bytes)


def stage_cost(trace: StageTrace) -> str:
    """What a stage says that it cost: quality where it measured some, how far it moved the outputs,
    and seconds.
    """
    details, parts = trace.details, []
    before, after = _number(details, "score_before"), _number(details, "score_after")
    if before is not None and after is not None:
        parts.append(f"{before:.4g} -> {after:.4g} on the validation split")
    if (moved := _number(details, "output_change")) is not None:
        parts.append(f"outputs moved by {moved:.1%} of their spread")
    if (share := _number(details, "share_of_macs_8_bit")) is not None:
        parts.append(f"{share:.0%} of the multiply-accumulates in 8 bits")
    if trace.params_after != trace.params_before:
        parts.append(f"{trace.params_before:,} -> {trace.params_after:,} parameters")
    explained = details.get(EXPLAINED)
    words = explained.get("words") if isinstance(explained, Mapping) else None
    if isinstance(words, str):
        parts.append(printable(first_line(words)))
    parts.append("taken from the cache" if trace.cached else f"{trace.seconds:.1f} s")
    return "; ".join(parts)


def _number(details: Mapping[str, object], name: str) -> float | None:
    value = details.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
