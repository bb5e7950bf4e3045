"""The modules of a study's model on their way out of it, as files that nothing has changed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from petra.core.errors import ArtifactError, ConfigError
from petra.core.trial import Trial
from petra.execute.built import MODULES
from petra.store.layout import own_file


def modules_of(directory: Path, trial: Trial) -> dict[str, bytes]:
    """The files of the modules of a `trial` of the study in `directory`, by name.

    Raises ConfigError for a trial without, ArtifactError for files that are missing or changed.
    """
    from petra.methods.adapt.files.record import MAX_RECORD, RECORD_FILE, TENSORS_FILE, read_record
    from petra.methods.adapt.files.tensors_file import plain_file

    place = Path(trial.artifact).parent / MODULES
    if not trial.artifact or not (directory / place).exists():
        raise ConfigError(
            f"export: trial {trial.number} has no files of modules",
            hint="only pipelines have them that put modules beside layers (the stage adapt)",
        )
    files = {}
    for name in (RECORD_FILE, TENSORS_FILE):
        file = own_file(directory, str(place / name))
        files[name] = plain_file(file, MAX_RECORD if name == RECORD_FILE else file.stat().st_size)
    record = read_record(directory / place / RECORD_FILE, files[RECORD_FILE])
    if hashlib.sha256(files[TENSORS_FILE]).hexdigest() != record.tensors:
        raise ArtifactError(
            f"{directory / place / TENSORS_FILE}: not the file that was trained: {RECORD_FILE}"
            " records another SHA-256",
            hint="was it changed since?",
        )
    return files


def write_or_clear(files: Mapping[str, bytes], target: Path) -> None:
    """Put modules into the directory `target`, in the place of others; without any, take away
    those that an earlier export left there.
    """
    from petra.methods.adapt.files.record import RECORD_FILE, TENSORS_FILE
    from petra.methods.adapt.files.save import write_files

    if files:
        write_files(target, files)
        return
    own = target.is_dir() and not target.is_symlink()
    if own and {p.name for p in target.iterdir()} == {RECORD_FILE, TENSORS_FILE}:
        shutil.rmtree(target)
