"""Models after each prefix of a pipeline, on disk, so that pipelines which begin alike share the
work. An entry is named by the prefix, and holds the model's tensors, its structure and traces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import nn

from petra.core.pipeline import Pipeline
from petra.core.trial import StageTrace
from petra.execute.entries import DAMAGE, Entries
from petra.methods.table import STAGES
from petra.model.description.differences import NotDescribable, describe, rebuild, weights
from petra.model.description.state_hash import state_hash
from petra.store.schema import petra_version
from petra.store.traces import read_traces, write_traces

_FORMAT = "2"  # 2: what is frozen was frozen by a stage


class PrefixCache:
    """Stored prefixes, at most `limit_bytes` in all of `directory`, the least recently used leaving
    first.

    Entries are only found under the same `context_key` (of model, data and seed, say), format,
    version of petra and of torch, and number of torch threads: anything a model's bits depend on
    besides the pipeline.
    """

    def __init__(self, directory: Path, limit_bytes: int, *, context_key: str = "") -> None:
        self.limit_bytes = limit_bytes
        versions = [_FORMAT, petra_version(), torch.__version__]
        words = [context_key, *versions, str(torch.get_num_threads())]
        context = hashlib.sha256("\x1f".join(words).encode()).hexdigest()[:32]
        self.entries = Entries(directory, limit_bytes, context=context)

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
        if self.entries.exists(pipeline.key):
            return ""
        if not any(p.is_floating_point() for p in model.parameters()):
            return "it has no floating-point weights"
        brought = _brought(pipeline)
        try:
            description = describe(model, original, brought)
            tensors = weights(model, description)
            # The description is trusted only after it has been seen to work.
            again = rebuild(original, description, tensors, brought)
            if state_hash(again) != state_hash(model):
                return "what its description makes is another model"
        except NotDescribable as error:
            return error.message
        record = {
            "pipeline": pipeline.canonical(),
            "structure": description,
            "traces": json.loads(write_traces(traces, where=f"traces of {pipeline}")),
        }
        return self.entries.write(pipeline.key, save(tensors), record)

    def longest(
        self,
        pipeline: Pipeline,
        original: nn.Module,
        usable: Callable[[Pipeline, Sequence[StageTrace]], bool] = lambda prefix, traces: True,
    ) -> tuple[int, nn.Module, tuple[StageTrace, ...]] | None:
        """The longest stored prefix of `pipeline` (all of it, possibly) that is `usable`: its
        length, its model and its traces.

        A damaged entry is removed and counts as absent.
        """
        for prefix in reversed(pipeline.prefixes()):
            try:
                model, traces = self._read(prefix, original)
                self.entries.used(prefix.key)
            except FileNotFoundError:
                continue
            except DAMAGE:
                self.entries.remove(prefix.key)
                continue
            if usable(prefix, traces):
                return len(prefix), model, traces
        return None

    def _read(
        self, prefix: Pipeline, original: nn.Module
    ) -> tuple[nn.Module, tuple[StageTrace, ...]]:
        """Rebuild an entry; raises one of DAMAGE when it is not as it was written."""
        tensors, record = self.entries.read(prefix.key)
        if record["pipeline"] != prefix.canonical():
            raise ValueError("the entry is another pipeline's")
        model = rebuild(original, record["structure"], load(tensors), _brought(prefix))
        return model, read_traces(record["traces"])


def _brought(pipeline: Pipeline) -> tuple[type[nn.Module], ...]:
    """Classes of modules that the pipeline's stages declare: as registered in this process, never
    as a file says."""
    stages = [STAGES.get(kind) for kind in {s.kind: s for s in pipeline} if kind in STAGES]
    return tuple(cls for stage in stages for cls in stage.modules())
