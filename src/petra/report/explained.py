"""Explaining a candidate of a study, a bundle or any model file: why slower, why float, at what
cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from petra.core.errors import ArtifactError, ConfigError, did_you_mean
from petra.core.measurement import Measurement
from petra.core.metric import CHANGE, QUALITY
from petra.core.target import Target
from petra.core.text import whole_number
from petra.core.trial import Trial
from petra.explaining.explain import explained
from petra.explaining.match import orders_of
from petra.explaining.measuring import profile_file, profile_trial
from petra.explaining.record import Explanation
from petra.front import PICKS
from petra.report.pipeline_text import pipeline_in_words
from petra.report.record import StudyRecord
from petra.report.recorded import METRICS_FILE, companion, recorded_files
from petra.runtimes.table import RUNTIMES, runtime_for, runtimes_by_suffix
from petra.store.checked import from_json, mapping, number, whole
from petra.store.store import Store


def explain(
    what: str | Path,
    pick: str | int = "knee",
    *,
    against: str | Path | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    inputs: str | Path | None = None,
    fresh: bool = False,
) -> Explanation:
    """Why a candidate is slower or faster, which of its layers are in float and why, and what it
    cost.

    what: a study's directory, a bundle's, or a model file. pick: of a study, a name as in
    `petra export`, or the number of any trial that was measured. The other arguments are for files:
    against, the untouched model's; runtime, instead of the one that the suffix stands for; threads,
    1 by default; inputs, an .npz file with an array for every input (random ones by default).
    fresh: profile a trial again although a profile of it is kept.

    Takes about ten seconds, in which the file is profiled in a process of its own beside the
    untouched model. Raises ConfigError for an unknown pick, ArtifactError for a file that is
    missing or does not run, StoreError for a damaged study.
    """
    place = Path(what)
    if place.is_dir() and Store.exists(place):
        given = (against, runtime, threads, inputs)
        if any(one is not None for one in given):
            raise ConfigError(
                "explain: a study has its own untouched model, runtime and data",
                hint="leave against, runtime, threads and inputs out",
            )
        return explain_pick(StudyRecord.load(place), pick, fresh=fresh)
    file = _in_bundle(place) if place.is_dir() else place
    return _explain_file(
        file,
        _target(file, runtime, threads),
        Path(against) if against is not None else None,
        Path(inputs) if inputs is not None else None,
    )


def explain_pick(record: StudyRecord, pick: str | int, *, fresh: bool = False) -> Explanation:
    """One trial of a study: a member of the front by name, or any by number."""
    return explain_trial(record, _chosen(record, pick), fresh=fresh)


def explain_front(directory: str | Path, *, fresh: bool = False) -> list[Explanation]:
    """Every member of a study's front, in its order: what the report shows of all of them. Takes
    about ten seconds each.
    """
    record = StudyRecord.load(directory)
    return [explain_trial(record, trial, fresh=fresh) for trial in record.front().members]


def explain_trial(record: StudyRecord, trial: Trial, *, fresh: bool = False) -> Explanation:
    baseline = record.front().baseline
    measured = profile_trial(record.directory, trial, baseline, record.config.target, fresh=fresh)
    subject = f"trial {trial.number}: {pipeline_in_words(trial.pipeline)}"
    return explained(subject, measured, trial, orders_of(record.trials))


def _chosen(record: StudyRecord, pick: str | int) -> Trial:
    if isinstance(pick, str) and (found := whole_number(pick)) is not None:
        pick = found
    if isinstance(pick, str):
        if pick not in PICKS:
            hint = f"{did_you_mean(pick, PICKS)}, or the number of a trial"
            raise ConfigError(f"pick: got {pick!r}", hint=hint)
        return record.front().choose(pick)
    trial = next((t for t in record.trials if t.number == pick), None)
    if trial is None:
        raise ConfigError(
            f"pick: there is no trial {pick}", hint="`petra show DIR --all` lists them"
        )
    return trial


def _target(file: Path, runtime: str | None, threads: int | None) -> Target:
    """What a file is run on: as told, as its bundle says, or as its suffix stands for."""
    if not file.is_file():
        raise ArtifactError(f"{file}: no such file", hint="give a study, a bundle or a model file")
    said = _recorded(file).get("target", {})
    told = said if isinstance(said, Mapping) else {}
    name = runtime or told.get("runtime")
    if not (runtime or name in RUNTIMES.names()):
        name = runtimes_by_suffix().get(file.suffix)
    if name is None:
        raise ConfigError(
            f"{file}: no runtime is known for {file.suffix or 'a name without suffix'}",
            hint="give a runtime",
        )
    own = told.get("threads")
    usual = own if isinstance(own, int) and 1 <= own <= 1024 else 1
    target = Target(str(name), threads=threads or usual)
    runtime_for(target)
    return target


def _in_bundle(place: Path) -> Path:
    """The main file of a bundle's directory. Raises ArtifactError where there is none."""
    metrics = place / METRICS_FILE
    if not metrics.is_file():
        raise ArtifactError(
            f"{place}: neither a study nor a bundle", hint="give a study, a bundle or a model file"
        )
    return place / next(iter(recorded_files(metrics)))


def _recorded(file: Path) -> dict[str, object]:
    """What the bundle of a file says, {} where there is none or it makes no sense."""
    beside = companion(file, METRICS_FILE)
    try:
        if beside is None or file.name not in recorded_files(beside):
            return {}
        return mapping(from_json(beside.read_text(encoding="utf-8"), "it"), "it")
    except (ArtifactError, OSError, ValueError):
        return {}


def _explain_file(
    file: Path, target: Target, against: Path | None, inputs: Path | None
) -> Explanation:
    measured = profile_file(file, target, baseline=against, inputs=inputs)
    found = explained(str(file), measured)
    quality = tuple(_changes(_recorded(file)))
    return replace(found, cost=replace(found.cost, quality=quality)) if quality else found


def _changes(recorded: Mapping[str, object]) -> list[tuple[str, Measurement]]:
    """By how much its quality differs from the untouched model's, as a bundle says."""
    found = []
    for split in ("validation", "test"):
        try:
            measured = mapping(mapping(recorded.get(split), split).get(QUALITY + CHANGE), split)
            mean, stderr = (
                number(measured.get("mean"), split),
                number(measured.get("stderr"), split, negative=False),
            )
            found.append((split, Measurement(mean, stderr, whole(measured.get("n"), split))))
        except ValueError:
            continue
    return found
