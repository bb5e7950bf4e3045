"""What leaves a study: the measured files, unchanged, and beside them what is known about them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from petra.core.errors import ArtifactError, ConfigError, did_you_mean
from petra.core.objective import Metrics
from petra.report.card import model_card
from petra.report.record import StudyRecord
from petra.runtimes.base import InputSpec, data_beside, files_of
from petra.runtimes.table import RUNTIMES, runtimes_by_suffix

if TYPE_CHECKING:
    from petra.report.front import Member

PIPELINE, METRICS, PARITY, CARD = "pipeline.yaml", "metrics.json", "parity.json", "MODEL_CARD.md"


def export_member(member: Member, path: str | Path, format: str | None) -> Path:
    """See `Member.export`."""
    place = _place(member, path, format)
    record = StudyRecord.load(member.front.directory)
    sources = shipped_files(member)
    if place.name != member.artifact.name and data_beside(member.artifact) in sources:
        raise ConfigError(
            f"export: trial {member.number} cannot be renamed: its weights are in a file that it finds by name",
            hint="export to a directory: end its name with '/'",
        )
    inputs = _inputs(member)
    with _explained(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        stem = member.artifact.stem
        shipped = [_copy(source, place.with_name(place.stem + source.name.removeprefix(stem))) for source in sources]
        for left_over in {*files_of(place)} - {*shipped}:
            left_over.unlink()
        prefix = "" if _is_bundle(place, path) else f"{place.stem}."
        for name, text in _companions(member, record, place, shipped, inputs).items():
            _write(place.parent / f"{prefix}{name}", text)
    return place


def companion(model_file: Path, name: str) -> Path | None:
    """The file `name` of the bundle that `model_file` belongs to; None when there is none."""
    for candidate in (model_file.with_name(f"{model_file.stem}.{name}"), model_file.with_name(name)):
        if candidate.is_file():
            return candidate
    return None


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped_files(member: Member) -> list[Path]:
    """All files of the artifact, the main one first. Raises ArtifactError unless they are those that were measured."""
    main = member.artifact
    if not member.trial.artifact or not main.is_file():
        raise ArtifactError(f"{main}: the model file of trial {member.number} is missing", hint="was it deleted?")
    files = [main, *(f for f in sorted(main.parent.glob(f"{main.stem}.*")) if f != main and f.is_file())]
    size, measured = sum(f.stat().st_size for f in files), member.trial.metrics["size_bytes"].mean
    if size != measured:
        raise ArtifactError(
            f"{main}: trial {member.number} has {size} bytes, {measured:.0f} were measured",
            hint="the files were changed after the study; only measured files ship",
        )
    return files


def _formats() -> dict[str, str]:
    """File kind -> the runtime that writes it, the plainest of several."""
    found = runtimes_by_suffix().items()
    return {suffix.removeprefix("."): name for suffix, name in found if RUNTIMES.get(name).suffix == suffix}


def _place(member: Member, path: str | Path, format: str | None) -> Path:
    """Where the main file goes; refuses formats that were not measured."""
    known, suffix = _formats(), f".{member.format}"
    target, text = Path(path), os.fspath(path)
    is_directory = text.endswith(("/", os.sep)) or target.is_dir() or not target.suffix
    asked = [format.lower().removeprefix(".")] if format else []
    asked += [] if is_directory else [target.suffix.lower().removeprefix(".")]
    for kind in asked:
        if kind in known and kind != member.format:
            raise ConfigError(
                f"export: trial {member.number} was measured as {suffix}, not as .{kind}",
                hint="only files that were measured ship, or the figures would not be theirs; "
                f"for .{kind} run a study with target.runtime: {known[kind]}",
            )
        if kind != member.format:
            raise ConfigError(
                f"export: unknown format {kind!r}",
                hint=f"{did_you_mean(kind, known)}; end a directory's name with '/'",
            )
    return target / f"model{suffix}" if is_directory else target


def _is_bundle(place: Path, path: str | Path) -> bool:
    return place != Path(path)


def _inputs(member: Member) -> tuple[InputSpec, ...]:
    runtime = RUNTIMES.get(_formats()[member.format])()
    return runtime.load(member.artifact, threads=1).inputs


def _companions(
    member: Member, record: StudyRecord, place: Path, shipped: list[Path], inputs: tuple[InputSpec, ...]
) -> dict[str, str]:
    trial, baseline = member.trial, member.front.baseline
    metrics = {
        "trial": trial.number,
        "metric": record.metric,
        "maximize": record.maximize,
        "files": [{"name": f.name, "bytes": f.stat().st_size, "sha256": sha256(f)} for f in shipped],
        "inputs": [{"name": i.name, "dtype": i.dtype, "shape": list(i.shape)} for i in inputs],
        "validation": _plain(trial.metrics),
        "test": _plain(trial.test),
        "baseline": {
            "validation": _plain(baseline.metrics if baseline else {}),
            "test": _plain(baseline.test if baseline else {}),
        },
        "target": record.config.target.model_dump(),
        "host": dict(record.host),
    }
    parity = {"compared_with": "the PyTorch model this file was exported from, on validation items", **trial.parity}
    return {
        PIPELINE: f"# trial {trial.number}, read by petra.Pipeline.from_list\n"
        + yaml.safe_dump(trial.pipeline.as_list(), sort_keys=False, allow_unicode=True),
        METRICS: json.dumps(metrics, indent=2, allow_nan=False, ensure_ascii=False) + "\n",
        PARITY: json.dumps(parity, indent=2, allow_nan=False) + "\n",
        CARD: model_card(trial, baseline, record, place.name, inputs),
    }


def _plain(metrics: Metrics) -> Mapping[str, object]:
    return {name: m.as_dict() for name, m in metrics.items()}


def _copy(source: Path, target: Path) -> Path:
    """Copy so that `target` is never seen half written. A file onto itself is left alone."""
    if target.exists() and target.samefile(source):
        return target
    with _replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _write(target: Path, text: str) -> None:
    with _replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are for their owner alone
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"export: cannot write to {directory}: {error.strerror or error}", hint="choose another place"
        ) from error
