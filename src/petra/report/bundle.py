"""What leaves a study: the measured files, unchanged, and beside them what is known about them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

from petra.core.digest import sha256
from petra.core.errors import ArtifactError, ConfigError, did_you_mean
from petra.core.objective import Metrics
from petra.core.target import Target
from petra.core.text import json_text
from petra.core.trial import Trial
from petra.core.whole import copy_whole, write_whole
from petra.execute.built import MODULES
from petra.explaining.explain import explained
from petra.explaining.match import orders_of
from petra.explaining.measuring import profile_trial
from petra.explaining.record import Explanation
from petra.front import Front
from petra.measure.client import alone
from petra.measure.inspect_main import declared_inputs
from petra.report.card import model_card
from petra.report.modules import modules_of, write_or_clear
from petra.report.pipeline_text import pipeline_in_words
from petra.report.record import StudyRecord
from petra.report.recorded import CARD_FILE, METRICS_FILE, PARITY_FILE, PIPELINE_FILE
from petra.runtimes.base import InputSpec
from petra.runtimes.table import RUNTIMES, files_of, runtimes_by_suffix
from petra.store.layout import StudyPaths, own_file


@dataclass(frozen=True)
class Member:
    """One model of the `front` of the study in `directory`, ready to leave it."""

    trial: Trial
    front: Front = field(repr=False)
    directory: Path

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def artifact(self) -> Path:
        """The measured model file inside the study directory."""
        return self.directory / self.trial.artifact

    @property
    def format(self) -> str:
        """The kind of file: 'onnx', 'pt2', ..."""
        return Path(self.trial.artifact).suffix.removeprefix(".")

    def export(self, path: str | Path, format: str | None = None, *, modules: bool = False) -> Path:
        """Copy the measured file out of the study, with what is known about it, and return the
        model file's path.

        A `path` that ends in the format's suffix is the model file, and its companions lie beside
        it as ``<stem>.pipeline.yaml``, ``.metrics.json``, ``.parity.json`` and ``.MODEL_CARD.md``.
        Any other `path` is a directory, made if need be, that receives ``model.<format>``,
        ``pipeline.yaml``, ``metrics.json``, ``parity.json`` and ``MODEL_CARD.md``. Existing files
        of these names are replaced.

        With `modules`, the modules that its pipeline trained beside the layers are copied, too,
        into the directory ``modules`` or ``<stem>.modules``, for `petra.load_modules`.

        Raises ConfigError when another format is asked for than the study measured (only measured
        files ship), and when modules are asked for that there are not.
        """
        place = _place(self, path, format)
        prefix = "" if _is_bundle(place, path) else f"{place.stem}."
        record = StudyRecord.load(self.directory)
        sources = shipped_files(self)
        if place.name != self.artifact.name and len(sources) > 1:
            raise ConfigError(
                f"export: trial {self.number} cannot be renamed: its weights are in a file that it"
                " finds by name",
                hint="export to a directory: end its name with '/'",
            )
        inserted = modules_of(self.directory, self.trial) if modules else {}
        inputs = _inputs(self)
        with _explained(place.parent):
            place.parent.mkdir(parents=True, exist_ok=True)
            stem = self.artifact.stem
            shipped = [
                copy_whole(source, place.with_name(place.stem + source.name.removeprefix(stem)))
                for source in sources
            ]
            for left_over in {*files_of(place)} - {*shipped}:
                left_over.unlink()
            beside = place.parent / f"{prefix}{MODULES}"
            if inserted or beside.exists():
                write_or_clear(inserted, beside)
            for name, content in _companions(self, record, place, shipped, inputs).items():
                write_whole(place.parent / f"{prefix}{name}", content)
        return place

    def explain(self, *, fresh: bool = False) -> Explanation:
        """Why it is slower or faster than the untouched model, which layers are in float and why,
        what it cost. Profiles it in about ten seconds, unless a profile is kept and not `fresh`.
        """
        target = StudyRecord.load(self.directory, whole=False).config.target
        measured = profile_trial(
            self.directory, self.trial, self.front.baseline, target, fresh=fresh
        )
        return explained(str(self), measured, self.trial, orders_of(self.front.trials))

    def __str__(self) -> str:
        return f"trial {self.number}: {pipeline_in_words(self.trial.pipeline)}"


def default_place(directory: Path, pick: str) -> str:
    """Where a study's own bundles go.

    Raises ArtifactError when a link leads elsewhere from there.
    """
    place = StudyPaths(directory).export(pick)
    if place.is_symlink():
        raise ArtifactError(f"{place}: this is a link", hint="remove it, or give another place")
    return f"{place}/"


def shipped_files(member: Member) -> list[Path]:
    """All files of the artifact, the main one first.

    Raises ArtifactError unless they are those that were measured.
    """
    main = member.artifact
    if not member.trial.artifact or not os.path.lexists(main):
        raise ArtifactError(
            f"{main}: the model file of trial {member.number} is missing", hint="was it deleted?"
        )
    directory = member.directory
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
        "metrics": [metric.as_dict() for metric in record.task],
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
        PIPELINE_FILE: (
            f"# trial {trial.number}, read by petra.Pipeline.from_list\n"
            + yaml.safe_dump(trial.pipeline.as_list(), sort_keys=False, allow_unicode=True)
        ),
        METRICS_FILE: json_text(metrics) + "\n",
        PARITY_FILE: json_text(parity) + "\n",
        CARD_FILE: model_card(trial, baseline, record, place.name, inputs),
    }


def _plain(metrics: Metrics) -> Mapping[str, object]:
    return {name: m.as_dict() for name, m in metrics.items()}


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"export: cannot write to {directory}: {error.strerror or error}",
            hint="choose another place",
        ) from error
