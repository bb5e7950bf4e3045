"""The files of trials, and what they are known by once the search has ended."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from petra.core.digest import sha256
from petra.core.errors import ArtifactError
from petra.core.trial import Trial
from petra.store.checked import mapping, text
from petra.store.layout import own_file

FILES = "files"  # the note with the SHA-256 of the files of the front's members, by trial and name
Digests = Mapping[int, Mapping[str, str]]


def artifact_files(directory: Path, trial: Trial) -> list[Path]:
    """All files of a trial's artifact in the study in `directory`, the main one first.

    Raises ArtifactError when it is missing, and where a link leads elsewhere.
    """
    main = directory / trial.artifact
    if not trial.artifact or not os.path.lexists(main):
        raise ArtifactError(
            f"{main}: the model file of trial {trial.number} is missing", hint="was it deleted?"
        )
    main = own_file(directory, trial.artifact)
    beside = sorted(f for f in main.parent.iterdir() if f.name.startswith(f"{main.stem}."))
    own = [own_file(directory, str(f.relative_to(directory))) for f in beside if not f.is_dir()]
    return [main, *(f for f in own if f != main)]


def digests_of(
    directory: Path, trials: Iterable[Trial], known: Mapping[str, object]
) -> dict[str, object]:
    """What the note `FILES` is to say: what is `known`, and of other trials what their files are
    now. Those without files are left out.
    """
    found = dict(known)
    for trial in trials:
        if trial.artifact and str(trial.number) not in found:
            try:
                files = artifact_files(directory, trial)
            except ArtifactError:
                continue
            found[str(trial.number)] = {file.name: sha256(file) for file in files}
    return found


def read_digests(note: object) -> dict[int, dict[str, str]]:
    """The note `FILES`, {} where there is none. ValueError for what petra does not write."""
    found = {}
    for number, files in mapping(note or {}, f"note {FILES!r}").items():
        if not re.fullmatch(r"[0-9]{1,9}", number, re.ASCII):
            raise ValueError(f"note {FILES!r} is not about trials")
        listed = mapping(files, "files").items()
        found[int(number)] = {text(name, "a file"): text(digest, name) for name, digest in listed}
    return found


def check_digests(files: Iterable[Path], digests: Mapping[str, str], *, number: int) -> None:
    """Raise ArtifactError for a file that is not what it was when the search ended. Files of which
    that is not known pass.
    """
    for file in files:
        if file.name in digests and sha256(file) != digests[file.name]:
            raise ArtifactError(
                f"{file}: not the file that was measured: trial {number} is recorded with another"
                " SHA-256",
                hint="it is damaged or was changed after the study; only measured files ship",
            )
