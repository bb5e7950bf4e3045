"""The modules of a build are at hand wherever its model comes from, as far as its training went."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from torch import nn

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.trial import FULL, Fidelity, StageTrace
from petra.execute.apply import apply_pipeline
from petra.execute.cache import PrefixCache
from petra.execute.kept_modules import KeptModules
from petra.methods.adapt.files.record import RECORD_FILE, TENSORS_FILE
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.outline import outline_of
from petra.tasks.base import Task
from petra.testing.architectures import ARCHITECTURES

ADAPT = StageSpec("adapt", {"lora": 2, "epochs": 2, "lr": 0.01})
QUANTIZE = StageSpec("quantize.dynamic")
Problem = tuple[nn.Module, Task]


@pytest.fixture(scope="module")
def given() -> Problem:
    return ARCHITECTURES.get("torch-transformer")()


@pytest.fixture
def cache(tmp_path: Path) -> PrefixCache:
    return PrefixCache(tmp_path / "cache", 1 << 28)


def built(
    given: Problem, cache: PrefixCache | None, *stages: StageSpec, fidelity: Fidelity = FULL
) -> tuple[KeptModules, tuple[StageTrace, ...]]:
    model, task = given
    outline = outline_of(model)
    pipeline = Pipeline(
        tuple(STAGES.get(s.kind).card_for(task, outline).normalize(s.params) for s in stages)
    )
    kept = KeptModules(cache.entries if cache else None)
    _, traces = apply_pipeline(
        model,
        pipeline,
        lambda prefix: Context(task=task, teacher=model, seed=derive_seed(0, prefix.key)),
        fidelity=fidelity,
        cache=cache,
        on_stage=lambda index, spec: None,
        kept=kept,
    )
    return kept, traces


def test_who_begins_alike_has_the_same_modules(given: Problem, cache: PrefixCache) -> None:
    first, _ = built(given, cache, ADAPT)
    assert json.loads(first.files[RECORD_FILE])["modules"]
    again, traces = built(given, cache, ADAPT, QUANTIZE)
    assert [t.cached for t in traces] == [True, False]
    assert again.files == first.files
    assert built(given, None, ADAPT)[0].files == first.files


def test_what_is_in_the_cache_without_its_modules_runs_again(
    given: Problem, cache: PrefixCache
) -> None:
    first, _ = built(given, cache, ADAPT)
    (entry,) = (tmp for tmp in cache.entries.directory.glob("*/*.modules"))
    for damage in (lambda: cache.entries.remove(entry.name), lambda: cut(entry)):
        damage()
        again, (trace,) = built(given, cache, ADAPT)
        assert not trace.cached
        assert again.files == first.files
        _, (trace,) = built(given, cache, ADAPT)
        assert trace.cached


def cut(entry: Path) -> None:
    file = entry / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def test_a_training_that_is_stopped_has_the_modules_it_came_to(
    given: Problem, cache: PrefixCache
) -> None:
    whole, _ = built(given, None, ADAPT)
    sizes = {name: len(content) for name, content in whole.files.items()}
    for fidelity in (Fidelity(epochs=0.5), Fidelity(zero_shot=True)):
        for cached in (False, True):
            kept, (trace,) = built(given, cache, ADAPT, fidelity=fidelity)
            assert trace.cached == cached
            assert len(kept.files[TENSORS_FILE]) == sizes[TENSORS_FILE]
            assert kept.files[TENSORS_FILE] != whole.files[TENSORS_FILE]


def test_files_are_written_where_there_are_any(given: Problem, tmp_path: Path) -> None:
    none, _ = built(given, None, QUANTIZE)
    none.write(tmp_path)
    assert not none.files
    assert not any(tmp_path.iterdir())
    kept, _ = built(given, None, ADAPT)
    kept.write(tmp_path)
    written = {p.name: p.read_bytes() for p in (tmp_path / "modules").iterdir()}
    assert written == kept.files
    assert sum(map(len, written.values())) == kept.bytes
    digest = hashlib.sha256(written[TENSORS_FILE]).hexdigest()
    assert json.loads(written[RECORD_FILE])["tensors"]["sha256"] == digest
