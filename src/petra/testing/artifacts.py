"""An assertion for people's own tests of a model that ships: it is the file that was measured, it
still gives what it gave, and its figures are within bounds. No pytest is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petra.core.errors import ArtifactError, PetraError
from petra.core.measurement import Measurement
from petra.core.metric import QUALITY, describe
from petra.core.objective import Constraint

if TYPE_CHECKING:
    from petra.core.interface import Interface
    from petra.core.target import Target
    from petra.report.bundle_check import Bundle

LIMIT_S = 600.0
_NOT_KNOWN = "not known: no bundle with a study's figures lies beside the file"


def assert_artifact(
    path: str | Path,
    *constraints: str,
    against: str | Path | None = None,
    time_limit_s: float = LIMIT_S,
) -> None:
    """Fail unless the model file or bundle at `path` is sound here, and within the `constraints`,
    which are written as in a study.

    Sound is what `petra verify` calls so: all files as exported, it loads in a fresh process, and
    gives for its sample what was recorded. In constraints, the size is that of the files now; all
    else is as recorded when this very file was measured, on the test split where it was confirmed
    there; and ``baseline`` is the untouched model of its study.

    With `against`, another file or bundle such as the model in production, ``baseline`` is that
    one, and what is timed is measured anew on this machine, the two in turns in three fresh
    processes (some ten seconds). Such a constraint fails only where the whole 95% interval is
    outside of it, so that noise alone breaks no build.

    >>> assert_artifact("model/", "quality >= baseline - 0.01", "size <= 300 kB")
    >>> assert_artifact("model/", "latency_ratio <= 0.8", against="production/model.onnx")

    Raises AssertionError that says what is wrong, what was wanted and what held; ConfigError for a
    constraint that cannot be read.
    """
    __tracebackhide__ = True
    wanted = [
        Constraint.parse(text, where=f"constraint {i}", own=None)
        for i, text in enumerate(constraints, 1)
    ]
    try:
        said = _judged(Path(path), wanted, Path(against) if against else None, time_limit_s)
    except PetraError as error:
        raise AssertionError(str(error)) from None
    if not all(held for held, _ in said):
        parts = [f"{'held' if held else 'FAILS'}  {text}" for held, text in sorted(said)]
        raise AssertionError(f"{path} is not within its bounds:\n  " + "\n  ".join(parts))


@dataclass(frozen=True)
class _Figures:
    """What is known of a file and of what it is compared with; metrics that were measured `here`,
    beside what `split` has.
    """

    mine: Mapping[str, Measurement]
    baseline: Mapping[str, Measurement]
    split: str
    here: frozenset[str] = frozenset()
    against: str = ""


def _judged(
    path: Path, wanted: Sequence[Constraint], against: Path | None, time_limit_s: float
) -> list[tuple[bool, str]]:
    """Of every constraint whether it holds, in words."""
    from petra.report.bundle_check import open_bundle, replay_sample

    bundle = open_bundle(path)
    if replay_sample(bundle, time_limit_s=time_limit_s) is None:
        _interface(bundle, time_limit_s)  # which tries it
    if against is None:
        figures = _recorded(bundle)
    else:
        names = frozenset(c.metric for c in wanted if describe(c.metric).timed)
        figures = _compared(bundle, open_bundle(against), names, time_limit_s)
    return [_held(constraint, figures) for constraint in wanted]


def _held(constraint: Constraint, figures: _Figures) -> tuple[bool, str]:
    from petra.report.numbers_text import value, with_error

    name = constraint.metric
    if name not in figures.mine:
        return False, f"{constraint}: {name} is {_NOT_KNOWN}"
    try:
        bound = constraint.bound(figures.baseline)
    except KeyError:
        return False, f"{constraint}: {name} of the baseline is {_NOT_KNOWN}"
    found, metric = figures.mine[name], describe(name)
    judged = found
    where = f"on the {figures.split} split" if metric.sampled else "as recorded"
    if name in figures.here:
        low, high = found.interval
        judged = replace(found, mean=high if constraint.at_least else low)
        where = f"measured here against {figures.against}"
    elif name == "size_bytes":
        where = "of the files"
    held = constraint.violation({name: judged}, figures.baseline) == 0
    got = with_error(found) if metric.sampled or found.stderr else value(metric, found.mean)
    limit = "" if not constraint.scale else f", which is {value(metric, bound)}"
    return held, f"{constraint}{limit}: got {got}, {where}"


def _recorded(bundle: Bundle) -> _Figures:
    """The study's figures; quality of both models on one split."""
    validation, test = (bundle.figures(which) for which in ("validation", "test"))
    base, base_test = (bundle.figures(w, baseline=True) for w in ("validation", "test"))
    confirmed = QUALITY in test and QUALITY in base_test
    mine = {**validation, **test} if confirmed else validation
    baseline = {**base, **base_test} if confirmed else base
    size = {"size_bytes": _size(bundle)}
    return _Figures({**mine, **size}, baseline, "test" if confirmed else "validation")


def _compared(
    bundle: Bundle, other: Bundle, names: frozenset[str], time_limit_s: float
) -> _Figures:
    """Figures that were recorded of both, and `names` measured here, if there are any."""
    mine, theirs = _recorded(bundle), _recorded(other)
    if mine.split != theirs.split:
        raise ArtifactError(
            f"{bundle.file} was confirmed on the test split, {other.file} was not, or the other way"
            " round",
            hint="export both from finished studies",
        )
    found = _timed(bundle, other, names, time_limit_s) if names else {}
    known = {n: m for n, m in mine.mine.items() if not describe(n).timed}
    base = {n: m for n, m in theirs.mine.items() if not describe(n).timed}
    for name, ratio in found.items():
        over = describe(name).over
        if over in found and describe(name).form == "ratio":
            base[over] = replace(found[over], mean=found[over].mean / ratio.mean)
    here = frozenset(found)
    return _Figures({**known, **found}, base, mine.split, here, str(other.file))


def _timed(
    bundle: Bundle, other: Bundle, names: frozenset[str], time_limit_s: float
) -> dict[str, Measurement]:
    """Both files in turns, in several fresh processes, on the sample where there is one."""
    from petra.measure.bench_main import Request, measure_file
    from petra.measure.client import alone
    from petra.measure.host import describe_host
    from petra.measure.launches import LAUNCHES, PRIOR, together
    from petra.measure.protocol import Race

    interface = _interface(bundle, time_limit_s)
    target = _at_its_batch(bundle.target(), interface)
    request = Request(
        target,
        str(bundle.file),
        baseline=str(other.file),
        baseline_target=_at_its_batch(other.target(), interface),
        confirm=True,
        metrics=tuple(sorted(names)),
        race=Race(spread=PRIOR.sd),
        host=str(describe_host()["id"]),
    )
    sample = bundle.sample()
    launches = []
    for _ in range(LAUNCHES):
        plain, _ = alone(
            measure_file,
            request,
            interface,
            str(sample[0]) if sample else "",
            artifact=str(bundle.file),
            runtimes=request.runtimes,
            threads=target.threads,
            time_limit_s=time_limit_s,
        )
        launches.append({name: Measurement(**m) for name, m in plain.items()})
    return together(launches, PRIOR)


def _at_its_batch(target: Target, interface: Interface) -> Target:
    if interface.free_batch:
        return target
    only = interface.fixed_batch or 1
    return replace(target, batch=only, throughput_batch=only)


def _interface(bundle: Bundle, time_limit_s: float) -> Interface:
    """What the file declares, run on random inputs in a fresh process."""
    from petra.core.interface import Interface
    from petra.measure.client import alone
    from petra.measure.inspect_main import InspectRequest, inspect

    if not bundle.file.is_file():
        raise ArtifactError(f"{bundle.file}: no such file", hint="give a model file or a bundle")
    target, sample = bundle.target(), bundle.sample()
    request = InspectRequest(target, str(bundle.file), inputs=str(sample[0]) if sample else "")
    found: dict[str, Any]
    found, _ = alone(
        inspect,
        request,
        artifact=str(bundle.file),
        runtimes=(target.runtime,),
        threads=target.threads,
        time_limit_s=time_limit_s,
    )
    return Interface.from_dict(found["interface"])


def _size(bundle: Bundle) -> Measurement:
    from petra.runtimes.table import files_of

    return Measurement(float(sum(f.stat().st_size for f in files_of(bundle.file))), unit="B")
