"""Modules that stages put beside layers, kept in files of their own while they are apart: a stage
may make them part of the weights before it ends.
"""

from __future__ import annotations

import contextlib
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

Files = Mapping[str, bytes]


@dataclass
class KeptModules:
    """Files of modules by what had run when they were trained: those of this build, and in
    `entries`, the cache's (None: there is none), those of others that begin alike.
    """

    entries: Entries | None = None
    _files: dict[str, Files] = field(default_factory=dict)

    def keep(self, ran: Pipeline, model: nn.Module) -> None:
        """Keep the modules of `model`. What files do not hold is not kept, nor is it an error."""
        with contextlib.suppress(PetraError):
            files = module_files(model)
            self._files[ran.key] = files
            if self.entries is not None:
                record = {"modules": files[RECORD_FILE].decode()}
                self.entries.write(_name(ran), files[TENSORS_FILE], record)

    def found(self, ran: Pipeline) -> Files:
        """Those that were kept when this had run; empty where none are."""
        if ran.key in self._files or self.entries is None:
            return self._files.get(ran.key, {})
        try:
            tensors, record = self.entries.read(_name(ran))
            return {TENSORS_FILE: tensors, RECORD_FILE: str(record["modules"]).encode()}
        except DAMAGE:
            return {}

    def write(
        self, pipeline: Pipeline, trace: Sequence[StageTrace], place: Path
    ) -> tuple[Path, ...]:
        """The files of the modules that a pipeline's last stage with modules trained, in a
        directory of their own in `place`; none where it has no such stage.
        """
        adapted = [i for i, stage in enumerate(trace) if ADAPT in stage.details]
        if not adapted or len(trace) != len(pipeline):
            return ()
        files = self.found(pipeline.prefixes()[adapted[-1]])
        if not files:
            return ()
        target = write_files(place / MODULES, files)
        return tuple(target / name for name in files)


def _name(ran: Pipeline) -> str:
    return f"{ran.key}.modules"
