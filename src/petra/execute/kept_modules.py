"""Modules that stages put beside layers, kept in files of their own while they are apart: a stage
may make them part of the weights before it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from petra.core.errors import PetraError
from petra.core.pipeline import Pipeline
from petra.core.trial import StageTrace
from petra.execute.account import ADAPT
from petra.execute.built import MODULES
from petra.execute.entries import DAMAGE, Entries
from petra.methods.adapt.files.record import RECORD_FILE, TENSORS_FILE
from petra.methods.adapt.files.save import module_files, write_files


@dataclass
class KeptModules:
    """The `files` of the modules that were trained last in a build, by name; none where none were,
    or where files do not hold such modules. `entries`, the cache's (None: there is none), have
    those of other builds, by what had run.
    """

    entries: Entries | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def keep(self, ran: Pipeline, model: nn.Module) -> None:
        """Take the modules of `model`, which are what `ran` ends with."""
        try:
            self.files = module_files(model)
        except PetraError:
            self.files = {}
        if self.entries is not None:
            record = {"modules": self.files.get(RECORD_FILE, b"").decode()}
            self.entries.write(_name(ran), self.files.get(TENSORS_FILE, b""), record)

    def again(self, ran: Pipeline, trace: Sequence[StageTrace]) -> bool:
        """Take the modules of a build that ran before, with that trace; False where there were
        some, and they are gone from the cache.
        """
        adapted = [i for i, stage in enumerate(trace) if ADAPT in stage.details]
        if not adapted or self.entries is None:
            return True
        name = _name(ran.prefixes()[adapted[-1]])
        try:
            tensors, record = self.entries.read(name)
            self.entries.used(name)
            text = str(record["modules"])
        except DAMAGE:
            self.entries.remove(name)
            return False
        self.files = {TENSORS_FILE: tensors, RECORD_FILE: text.encode()} if text else {}
        return True

    def write(self, place: Path) -> None:
        """The files, in a directory of their own in `place`, if there are any."""
        if self.files:
            write_files(place / MODULES, self.files)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(map(len, self.files.values()))


def _name(ran: Pipeline) -> str:
    return f"{ran.key}.modules"
