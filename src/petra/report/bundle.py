"""What leaves a study: the measured files, unchanged, and beside them what is known about them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from petra.core.digest import sha256
from petra.core.errors import ArtifactError, ConfigError, did_you_mean
from petra.core.objective import Metrics
from petra.core.target import Target
from petra.core.text import json_text, printable
from petra.measure.client import alone
from petra.measure.inspect_main import declared_inputs
from petra.report.card import model_card
from petra.report.record import StudyRecord
from petra.runtimes.base import InputSpec, data_beside, files_of
from petra.runtimes.table import RUNTIMES, runtimes_by_suffix
from petra.store.checked import from_json, mapping, sequence, text
from petra.store.layout import StudyPaths, own_file

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
            f"export: trial {member.number} cannot be renamed: its weights are in a file that it"
            " finds by name",
            hint="export to a directory: end its name with '/'",
        )
    inputs = _inputs(member)
    with _explained(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        stem = member.artifact.stem
        shipped = [
            _copy(source, place.with_name(place.stem + source.name.removeprefix(stem)))
            for source in sources
        ]
        for left_over in {*files_of(place)} - {*shipped}:
            left_over.unlink()
        prefix = "" if _is_bundle(place, path) else f"{place.stem}."
        for name, content in _companions(member, record, place, shipped, inputs).items():
            write_whole(place.parent / f"{prefix}{name}", content)
    return place


def default_place(directory: Path, pick: str) -> str:
    """Where a study's own bundles go. Raises ArtifactError when a link leads elsewhere from
    there.
    """
    place = StudyPaths(directory).export(pick)
    if place.is_symlink():
        raise ArtifactError(f"{place}: this is a link", hint="remove it, or give another place")
    return f"{place}/"


def companion(model_file: Path, name: str) -> Path | None:
    """The file `name` of the bundle that `model_file` belongs to; None when there is none."""
    for candidate in (
        model_file.with_name(f"{model_file.stem}.{name}"),
        model_file.with_name(name),
    ):
        if os.path.lexists(candidate):
            return candidate
    return None


def recorded_files(metrics: Path) -> dict[str, str]:
    """The files that a bundle's ``metrics.json`` is about: name -> SHA-256.

    Raises ArtifactError when it is no such file, and when it names anything but files beside it.
    """
    try:
        own_file(metrics.parent, metrics.name)
        if metrics.stat().st_size > _MAX_RECORD:
            raise ValueError(f"it has more than {_MAX_RECORD} bytes")
        data = mapping(from_json(metrics.read_text(encoding="utf-8"), "it"), "it")
        listed = [mapping(item, "files") for item in sequence(data.get("files"), "files")]
        found = {_file_name(item.get("name")): _digest(item.get("sha256")) for item in listed}
        if not 0 < len(found) == len(listed) <= _MAX_FILES:
            raise ValueError("files are none, too many, or named twice")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{metrics}: cannot be read: {error}", hint="export the model again"
        ) from None
    return found


def check_recorded(metrics: Path) -> dict[str, str]:
    """`recorded_files`, all of which are there and are those that were measured.

    Raises ArtifactError for one that is missing, a link or another file; reads no other files.
    """
    recorded = recorded_files(metrics)
    for name, digest in recorded.items():
        place = metrics.parent / name
        if not os.path.lexists(place):
            raise ArtifactError(
                f"{place}: the bundle's file is missing", hint="copy the whole bundle"
            )
        if sha256(own_file(metrics.parent, name)) != digest:
            raise ArtifactError(
                f"{place}: not the file that was measured: {metrics.name} records another SHA-256",
                hint="it is damaged or was changed; export it again",
            )
    return recorded


_MAX_RECORD, _MAX_FILES = 1 << 20, 100


def _file_name(value: object) -> str:
    name = text(value, "a file's name")
    if len(Path(name).parts) != 1 or name in (".", "..") or name != printable(name):
        raise ValueError(f"{printable(name)[:80]!r} is not the name of a file beside it")
    return name


def _digest(value: object) -> str:
    digest = text(value, "sha256")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("a sha256 is not one")
    return digest


def shipped_files(member: Member) -> list[Path]:
    """All files of the artifact, the main one first. Raises ArtifactError unless they are those
    that were measured.
    """
    main = member.artifact
    if not member.trial.artifact or not os.path.lexists(main):
        raise ArtifactError(
            f"{main}: the model file of trial {member.number} is missing", hint="was it deleted?"
        )
    directory = member.front.directory
    main = own_file(directory, member.trial.artifact)
    beside = sorted(f for f in main.parent.iterdir() if f.name.startswith(f"{main.stem}."))
    files = [main]
    files += [
        own_file(directory, str(f.relative_to(directory)))
        for f in beside
        if f != main and not f.is_dir()
    ]
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
    return {
        suffix.removeprefix("."): name
        for suffix, name in found
        if RUNTIMES.get(name).suffix == suffix
    }


def _place(member: Member, path: str | Path, format: str | None) -> Path:
    """Where the main file goes; refuses formats that were not measured."""
    known, suffix = _formats(), f".{member.format}"
    target, spelt = Path(path), os.fspath(path)
    is_directory = spelt.endswith(("/", os.sep)) or target.is_dir() or not target.suffix
    asked = [format.lower().removeprefix(".")] if format else []
    asked += [] if is_directory else [target.suffix.lower().removeprefix(".")]
    for kind in asked:
        if kind in known and kind != member.format:
            raise ConfigError(
                f"export: trial {member.number} was measured as {suffix}, not as .{kind}",
                hint=(
                    "only files that were measured ship, or the figures would not be theirs; "
                    f"for .{kind} run a study with target.runtime: {known[kind]}"
                ),
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
    """Asked in a process of its own, with limits: a study may be anybody's."""
    target, file = Target(_formats()[member.format]), str(member.artifact)
    found, _ = alone(
        declared_inputs, target, file, artifact=file, runtimes=(target.runtime,), threads=1
    )
    return tuple(InputSpec(**fields) for fields in found)


def _companions(
    member: Member,
    record: StudyRecord,
    place: Path,
    shipped: list[Path],
    inputs: tuple[InputSpec, ...],
) -> dict[str, str]:
    trial, baseline = member.trial, member.front.baseline
    metrics = {
        "trial": trial.number,
        "metric": record.metric,
        "maximize": record.maximize,
        "files": [
            {"name": f.name, "bytes": f.stat().st_size, "sha256": sha256(f)} for f in shipped
        ],
        "inputs": [{"name": i.name, "dtype": i.dtype, "shape": list(i.shape)} for i in inputs],
        "validation": _plain(trial.metrics),
        "test": _plain(trial.test),
        "baseline": {
            "validation": _plain(baseline.metrics if baseline else {}),
            "test": _plain(baseline.test if baseline else {}),
        },
        "target": asdict(record.config.target),
        "host": dict(record.host),
    }
    parity = {
        "compared_with": "the PyTorch model this file was exported from, on validation items",
        **trial.parity,
    }
    return {
        PIPELINE: (
            f"# trial {trial.number}, read by petra.Pipeline.from_list\n"
            + yaml.safe_dump(trial.pipeline.as_list(), sort_keys=False, allow_unicode=True)
        ),
        METRICS: json_text(metrics) + "\n",
        PARITY: json_text(parity) + "\n",
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


def write_whole(target: Path, content: str) -> None:
    """Write a text file so that it is never seen half written; a link there is replaced, not
    followed."""
    with _replacing(target) as temporary:
        temporary.write_text(content, encoding="utf-8")


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
            f"export: cannot write to {directory}: {error.strerror or error}",
            hint="choose another place",
        ) from error
