"""Models after each prefix of a pipeline, on disk, so that pipelines which begin alike share the
work.

An entry is a folder ``<context>/<key of the prefix>`` with the model's tensors (safetensors) and
its structure and traces (JSON). Entries appear and disappear whole, by renaming, so any number of
processes may use one directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from petra.core.errors import PetraError
from petra.core.pipeline import Pipeline
from petra.core.trial import StageTrace
from petra.methods.table import STAGES
from petra.model.description.differences import NotDescribable, describe, rebuild, weights
from petra.model.description.state_hash import state_hash
from petra.store.schema import petra_version
from petra.store.traces import read_traces, write_traces

_FORMAT = "2"  # 2: what is frozen was frozen by a stage
_TENSORS, _STRUCTURE = "model.safetensors", "model.json"
_UNFINISHED = ".unfinished-"
_DAMAGE = (
    *(
        PetraError,
        SafetensorError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
    ),
    *(ArithmeticError, MemoryError),
)
_ABANDONED_S = 3600.0  # an unfinished entry this old was left by a process that died


class PrefixCache:
    """Stored prefixes, at most `limit_bytes` in all of `directory`, the least recently used leaving
    first.

    Entries are only found under the same `context_key` (of model, data and seed, say), format,
    version of petra and of torch, and number of torch threads: anything a model's bits depend on
    besides the pipeline.
    """

    def __init__(self, directory: Path, limit_bytes: int, *, context_key: str = "") -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        versions = [_FORMAT, petra_version(), torch.__version__]
        words = [context_key, *versions, str(torch.get_num_threads())]
        self._context = directory / hashlib.sha256("\x1f".join(words).encode()).hexdigest()[:32]

    def put(
        self,
        pipeline: Pipeline,
        model: nn.Module,
        original: nn.Module,
        traces: Sequence[StageTrace],
    ) -> str:
        """Store `model`, made of `original` by `pipeline`; why it was not stored, '' when the entry
        is there.

        What cannot be described relative to the original is not, nor what has no float weights (a
        quantized graph), is larger than the limit or does not fit on the disk; an entry that is
        there already stays.
        """
        entry = self._context / pipeline.key
        if entry.exists():
            return ""
        if not any(p.is_floating_point() for p in model.parameters()):
            return "it has no floating-point weights"
        brought = _brought(pipeline)
        try:
            description, tensors = describe(model, original, brought), weights(model)
            # The description is trusted only after it has been seen to work.
            again = rebuild(original, description, tensors, brought)
            if state_hash(again) != state_hash(model):
                return "what its description makes is another model"
        except NotDescribable as error:
            return error.message
        body = save(tensors)
        record = {
            "pipeline": pipeline.canonical(),
            "tensors": hashlib.blake2b(body).hexdigest(),
            "structure": description,
            "traces": json.loads(write_traces(traces, where=f"traces of {pipeline}")),
        }
        text = json.dumps(record, separators=(",", ":"))
        text = json.dumps({"check": hashlib.blake2b(text.encode()).hexdigest(), "record": text})
        if len(body) + len(text) > self.limit_bytes:
            size = len(body) + len(text)
            return f"it takes {size} bytes, and the cache may hold {self.limit_bytes}"
        try:
            self._write(entry, body, text)
        except OSError as error:  # a full or read-only disk costs time, not the trial
            return f"it cannot be written: {error.strerror}"
        return ""

    def longest(
        self, pipeline: Pipeline, original: nn.Module
    ) -> tuple[int, nn.Module, tuple[StageTrace, ...]] | None:
        """The longest stored prefix of `pipeline` (all of it, possibly): its length, its model and
        its traces.

        A damaged entry is removed and counts as absent.
        """
        for prefix in reversed(pipeline.prefixes()):
            entry = self._context / prefix.key
            try:
                model, traces = self._read(entry, prefix, original)
                os.utime(entry)  # used now
            except FileNotFoundError:
                continue
            except _DAMAGE:
                with contextlib.suppress(OSError):
                    self._remove(entry)
                continue
            return len(prefix), model, traces
        return None

    def _read(
        self, entry: Path, prefix: Pipeline, original: nn.Module
    ) -> tuple[nn.Module, tuple[StageTrace, ...]]:
        """Rebuild an entry; raises one of many errors when anything about it is not as it was
        written.
        """
        outer = json.loads(_content(entry / _STRUCTURE, self.limit_bytes))
        if hashlib.blake2b(outer["record"].encode()).hexdigest() != outer["check"]:
            raise ValueError("the structure is damaged")
        record = json.loads(outer["record"])
        body = _content(entry / _TENSORS, self.limit_bytes)
        if (
            record["pipeline"] != prefix.canonical()
            or hashlib.blake2b(body).hexdigest() != record["tensors"]
        ):
            raise ValueError("the entry is damaged")
        model = rebuild(original, record["structure"], load(body), _brought(prefix))
        return model, read_traces(record["traces"])

    def _write(self, entry: Path, body: bytes, text: str) -> None:
        self._context.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._context))
        try:
            (unfinished / _TENSORS).write_bytes(body)
            (unfinished / _STRUCTURE).write_text(text)
            with self._locked():
                self._make_room(len(body) + len(text))
                unfinished.rename(entry)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            if not entry.exists():  # else another process was faster; its entry is as good
                raise

    def _make_room(self, needed: int) -> None:
        """Remove entries, longest unused first, until `needed` bytes fit under the limit."""
        entries = []
        for entry in self.directory.glob("*/*"):
            if entry.is_symlink() or entry.parent.is_symlink() or not entry.is_dir():
                continue  # not petra's: it makes no links
            with contextlib.suppress(FileNotFoundError):
                used_at = entry.stat().st_mtime
                if entry.name.startswith(_UNFINISHED) and time.time() - used_at < _ABANDONED_S:
                    continue
                entries.append((used_at, sum(f.stat().st_size for f in entry.iterdir()), entry))
        total = needed + sum(size for _, size, _ in entries)
        for _, size, entry in sorted(entries):
            if total <= self.limit_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                self._remove(entry)
            total -= size

    def _remove(self, entry: Path) -> None:
        """Take an entry away in one step, then delete it.

        A process reading it keeps the files it has opened.
        """
        grave = entry.rename(entry.with_name(_UNFINISHED + secrets.token_hex(8)))
        shutil.rmtree(grave, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _brought(pipeline: Pipeline) -> tuple[type[nn.Module], ...]:
    """Classes of modules that the pipeline's stages declare: as registered in this process, never
    as a file says."""
    stages = [STAGES.get(kind) for kind in {s.kind: s for s in pipeline} if kind in STAGES]
    return tuple(cls for stage in stages for cls in stage.modules())


def _content(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes: no link is followed, no pipe waited
    on.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise ValueError("no file that petra made")
        return file.read(limit)
