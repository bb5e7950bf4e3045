"""Profiling a file beside the untouched model's in a process of its own, and keeping what came of
it with the study.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from petra.core.digest import sha256
from petra.core.errors import ArtifactError, PetraError
from petra.core.profile import Profiled
from petra.core.target import Target
from petra.core.text import json_text
from petra.core.trial import Trial
from petra.core.whole import write_whole
from petra.measure.client import TIME_LIMIT_S, alone
from petra.measure.host import describe_host
from petra.measure.profile_main import ProfileRequest, profile
from petra.runtimes.table import runtime_for
from petra.store.checked import from_json
from petra.store.layout import StudyPaths, own_file

LARGEST = 1 << 24  # bytes of a kept profile


@cache
def _kept_form() -> TypeAdapter[Profiled]:
    return TypeAdapter(Profiled)


def profile_file(
    file: Path,
    target: Target,
    *,
    baseline: Path | None = None,
    data: Path | None = None,
    inputs: Path | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> Profiled:
    """Profile a model file, beside `baseline` if there is one, on a written split, the items of an
    .npz file, or random ones. Takes about ten seconds. Raises as `petra.measure.client.alone`.
    """
    here = describe_host()
    sets = here["instruction_sets"]
    assert isinstance(sets, dict)
    request = ProfileRequest(
        target,
        str(file),
        baseline=str(baseline or ""),
        data=str(data or ""),
        inputs=str(inputs or ""),
        host=str(here["id"]),
        instruction_sets=tuple(name for name, has in sets.items() if has),
    )
    found, _ = alone(
        profile,
        request,
        artifact=str(file),
        runtimes=(target.runtime,),
        threads=target.threads,
        time_limit_s=time_limit_s,
    )
    return found


def profile_trial(
    directory: Path, trial: Trial, baseline: Trial | None, target: Target, *, fresh: bool = False
) -> Profiled:
    """The profile of a trial of the study in `directory`, on its own validation items: the kept one
    if it is of this file, machine and version of the runtime, unless it is to be `fresh`; else a
    new one, which is kept where the study can be written.

    Raises ArtifactError for a trial without its file.
    """
    place = artifact_of(directory, trial)
    kept = None if fresh else kept_profile(directory, trial)
    here = (describe_host()["id"], runtime_for(target).version())
    if kept is not None and (kept.host, kept.version) == here:
        return kept
    data = StudyPaths(directory).data / "val"
    found = profile_file(
        place,
        target,
        baseline=artifact_of(directory, baseline) if baseline and trial.number else None,
        data=data if data.is_dir() else None,
    )
    _keep(directory, trial, found)
    return found


def artifact_of(directory: Path, trial: Trial) -> Path:
    """The model file of a trial. Raises ArtifactError when there is none."""
    if not trial.artifact:
        raise ArtifactError(
            f"trial {trial.number} has no model file: it ended as {trial.status.value}",
            hint="only what was exported and measured can be profiled",
        )
    return own_file(directory, trial.artifact)


def kept_profile(directory: Path, trial: Trial) -> Profiled | None:
    """What was kept of a trial, None where there is nothing, it is of another file, or is not what
    petra writes.
    """
    paths = StudyPaths(directory)
    try:
        place = own_file(directory, paths.relative(paths.profile(trial.number)))
        if place.stat().st_size > LARGEST:
            return None
        text = place.read_text(encoding="utf-8")
        from_json(text, "it")  # which has no number that cannot be computed with
        found = _kept_form().validate_json(text, strict=True)
        same = found.digest == sha256(artifact_of(directory, trial))
    except (PetraError, OSError, ValueError):
        return None
    return found if same and found.mine_ms > 0 else None


def _keep(directory: Path, trial: Trial, found: Profiled) -> None:
    """Write it down; a study that cannot be written is explained all the same."""
    place = StudyPaths(directory).profile(trial.number)
    try:
        place.parent.mkdir(exist_ok=True)
        if place.parent.is_symlink():
            return
        write_whole(place, json_text(asdict(found)) + "\n")
    except OSError:
        return
