"""What leaves a study: the measured files, unchanged, and beside them what is known about them."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petra.core.errors import ArtifactError, ConfigError, did_you_mean
from petra.core.meaning import Meaning
from petra.core.target import Target
from petra.core.text import shown
from petra.core.trial import Trial
from petra.core.whole import copy_whole, write_whole
from petra.execute.built import MODULES
from petra.explaining.explain import explained
from petra.explaining.match import orders_of
from petra.explaining.measuring import profile_trial
from petra.explaining.record import Explanation
from petra.front import Front
from petra.measure.client import alone
from petra.measure.evidence import Looked, look_at
from petra.measure.host import describe_host
from petra.report.companions import companions
from petra.report.evidence import Evidence
from petra.report.modules import modules_of, write_or_clear
from petra.report.notebook import member_card, member_line
from petra.report.pipeline_text import pipeline_in_words
from petra.report.record import StudyRecord
from petra.report.recorded import SAMPLE_INPUTS, SAMPLE_OUTPUTS, SUMS_FILE, sums_text
from petra.runtimes.table import RUNTIMES, files_of, runtime_for, runtimes_by_suffix
from petra.store.kept_files import artifact_files, check_digests
from petra.store.layout import StudyPaths

SAMPLE_ITEMS = 16
"""Validation items that go with a file, unless they are too large or somebody says otherwise."""


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

    def export(
        self,
        path: str | Path,
        format: str | None = None,
        *,
        modules: bool = False,
        preprocessing: str = "",
        sample: int = SAMPLE_ITEMS,
    ) -> Path:
        """Copy the measured file out of the study, with what is known about it, and return the
        model file's path.

        A `path` that ends in the format's suffix is the model file, and its companions lie beside
        it as ``<stem>.metrics.json`` and so on. Any other `path` is a directory, made if need be,
        that receives ``model.<format>``, ``pipeline.yaml``, ``metrics.json``, ``parity.json``,
        ``evidence.json``, ``MODEL_CARD.md``, the sample and ``SHA256SUMS`` of all these. Existing
        files of these names are replaced.

        `preprocessing` says what raw data goes through before the file, where the task did not;
        nobody having said it is a warning. `sample` is the number of validation items that go with
        the file, about a megabyte of them at most, in ``sample_inputs.npz``, and what it returns
        for them in ``sample_outputs.npz``: 0 where data must not leave. With `modules`, the modules
        that its pipeline trained beside the layers are copied, too, into the directory ``modules``
        or ``<stem>.modules``, for `petra.load_modules`.

        Raises ConfigError when another format is asked for than the study measured (only measured
        files ship), and when modules are asked for that there are not.
        """
        preprocessing = _said(preprocessing)
        if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
            raise ConfigError(f"sample: got {shown(sample)}", hint="a number of items, 0 for none")
        place = _place(self, path, format)
        prefix = "" if _is_bundle(place, path) else f"{place.stem}."
        record = StudyRecord.load(self.directory)
        sources = shipped_files(self, record)
        if place.name != self.artifact.name and len(sources) > 1:
            raise ConfigError(
                f"export: trial {self.number} cannot be renamed: its weights are in a file that it"
                " finds by name",
                hint="export to a directory: end its name with '/'",
            )
        inserted = modules_of(self.directory, self.trial) if modules else {}
        with tempfile.TemporaryDirectory(prefix="petra-export-") as scratch:
            evidence = self._evidence(record, Path(scratch), prefix, preprocessing, sample)
            with _explained(place.parent):
                place.parent.mkdir(parents=True, exist_ok=True)
                written = self._copied(sources, place)
                beside = place.parent / f"{prefix}{MODULES}"
                if inserted or beside.exists():
                    write_or_clear(inserted, beside)
                texts = companions(self.front.baseline, record, place, written, evidence)
                for name in (SAMPLE_INPUTS, SAMPLE_OUTPUTS):
                    target = place.parent / f"{prefix}{name}"
                    target.unlink(missing_ok=True)
                    if evidence.sample:
                        written.append(copy_whole(Path(scratch) / name, target))
                for name, content in texts.items():
                    write_whole(place.parent / f"{prefix}{name}", content)
                    written.append(place.parent / f"{prefix}{name}")
                written += [file for file in beside.glob("*") if inserted]
                sums = sums_text(place.parent, written)
                write_whole(place.parent / f"{prefix}{SUMS_FILE}", sums)
        for remark in evidence.remarks():
            warnings.warn(f"{place}: {remark}", stacklevel=2)
        return place

    def _evidence(
        self, record: StudyRecord, scratch: Path, prefix: str, preprocessing: str, items: int
    ) -> Evidence:
        """What is known of the file, and in `scratch` the sample."""
        target, looked = _looked_at(self, record, scratch, items)
        meaning = record.meaning or Meaning()
        return Evidence(
            self.trial,
            target,
            looked,
            record.interface,
            replace(meaning, preprocessing=preprocessing or meaning.preprocessing),
            (f"{prefix}{SAMPLE_INPUTS}", f"{prefix}{SAMPLE_OUTPUTS}") if "sample" in looked else (),
            describe_host(),
        )

    def _copied(self, sources: list[Path], place: Path) -> list[Path]:
        """The measured files at their new place, where others of their names go."""
        stem = self.artifact.stem
        shipped = [
            copy_whole(source, place.with_name(place.stem + source.name.removeprefix(stem)))
            for source in sources
        ]
        for left_over in {*files_of(place)} - {*shipped}:
            left_over.unlink()
        return shipped

    def __repr__(self) -> str:
        return member_line(self.front, self.trial)

    def _repr_html_(self) -> str:
        return member_card(self.front, self.trial)

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


def shipped_files(member: Member, record: StudyRecord | None = None) -> list[Path]:
    """All files of the artifact, the main one first.

    Raises ArtifactError unless they are those that were measured; by their content where the study
    keeps their digests, which its `record` has.
    """
    files = artifact_files(member.directory, member.trial)
    size, measured = sum(f.stat().st_size for f in files), member.trial.metrics["size_bytes"].mean
    if size != measured:
        raise ArtifactError(
            f"{files[0]}: trial {member.number} has {size} bytes, {measured:.0f} were measured",
            hint="the files were changed after the study; only measured files ship",
        )
    if record is not None:
        check_digests(files, record.digests.get(member.number, {}), number=member.number)
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


def _said(preprocessing: object) -> str:
    """The text on one line. Raises ConfigError for what is no text, and for too much of it."""
    plain = Meaning().as_dict() | {"preprocessing": preprocessing}
    try:
        return Meaning.from_dict(plain).preprocessing
    except ValueError as error:
        raise ConfigError(f"preprocessing: {error}", hint="a sentence or two") from None


def _is_bundle(place: Path, path: str | Path) -> bool:
    return place != Path(path)


def _looked_at(
    member: Member, record: StudyRecord, scratch: Path, items: int
) -> tuple[Target, dict[str, Any]]:
    """What `petra.measure.evidence.look_at` says of the file, asked in a process of its own, with
    limits: a study may be anybody's. And the target that it was run as: the study's own where this
    machine has it.
    """
    target, file = record.config.target, str(member.artifact)
    data = StudyPaths(member.directory).data
    if target.runtime not in RUNTIMES or runtime_for(target).lacks():
        target = Target(_formats()[member.format], threads=target.threads)
    there = (data / "val").is_dir() and any((data / "val").iterdir())
    request = Looked(
        target,
        file,
        str(data.resolve()) if there else "",
        items,
        str(scratch / SAMPLE_INPUTS),
        str(scratch / SAMPLE_OUTPUTS),
    )
    found, _ = alone(
        look_at, request, artifact=file, runtimes=(target.runtime,), threads=target.threads
    )
    return target, found


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"export: cannot write to {directory}: {error.strerror or error}",
            hint="choose another place",
        ) from error
