"""The prefix cache: what is found, what is not, and what happens to it under damage, pressure and
company.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import StageTrace
from petra.execute.cache import PrefixCache
from petra.model.description.state_hash import state_hash

A, B, C = (StageSpec(k, {"x": i}) for i, k in enumerate("abc"))
AB = Pipeline((A, B))
TRACES = (
    StageTrace("a", ("0",), {"1": "why"}, 10, 5, 0.25, 100.5, False, {"ranks": [1, 2]}),
    StageTrace("b"),
)


def make(seed: int = 0, width: int = 16) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


ORIGINAL = make()


def entries(directory: Path) -> list[Path]:
    return sorted(p for p in directory.glob("*/*") if not p.name.startswith("."))


def entry_of(directory: Path, pipeline: Pipeline) -> Path:
    return next(p for p in entries(directory) if p.name == pipeline.key)


def size(entry: Path) -> int:
    return sum(f.stat().st_size for f in entry.iterdir())


def test_the_longest_prefix_is_found(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, 10**7)
    assert cache.longest(AB, ORIGINAL) is None
    assert not cache.put(Pipeline((A,)), make(1), ORIGINAL, TRACES[:1])
    assert not cache.put(AB, make(2), ORIGINAL, TRACES)
    for pipeline, length, seed in [
        (Pipeline((A,)), 1, 1),
        (AB, 2, 2),
        (Pipeline((A, B, C)), 2, 2),
        (Pipeline((A, C)), 1, 1),
    ]:
        found = cache.longest(pipeline, ORIGINAL)
        assert found
        assert (found[0], state_hash(found[1]), found[2]) == (
            length,
            state_hash(make(seed)),
            TRACES[:length],
        )
    assert cache.longest(Pipeline((B, A)), ORIGINAL) is None
    assert cache.longest(Pipeline(), ORIGINAL) is None
    assert cache.put(AB, make(3), ORIGINAL, TRACES) == "", "an entry stays as it is"


def test_contexts_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PrefixCache(tmp_path, 10**7, context_key="one").put(AB, make(1), ORIGINAL, TRACES)
    assert PrefixCache(tmp_path, 10**7, context_key="two").longest(AB, ORIGINAL) is None
    assert PrefixCache(tmp_path, 10**7, context_key="one").longest(AB, ORIGINAL)
    monkeypatch.setattr(torch, "__version__", "0.4")
    assert PrefixCache(tmp_path, 10**7, context_key="one").longest(AB, ORIGINAL) is None


def test_what_is_not_stored(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, 10**7)
    hooked = make(1)
    hooked.register_forward_hook(lambda m, i, o: o + 1)
    graph, weightless = torch.fx.symbolic_trace(make(1)), nn.Sequential(nn.ReLU())
    assert "_forward_hooks" in cache.put(AB, hooked, ORIGINAL, TRACES)
    assert "is code, which is not stored" in cache.put(AB, graph, ORIGINAL, TRACES)
    assert "no floating-point weights" in cache.put(AB, weightless, ORIGINAL, TRACES)
    assert "may hold 1000" in PrefixCache(tmp_path, 1000).put(AB, make(1), ORIGINAL, TRACES)
    assert entries(tmp_path) == []
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert "cannot be written" in PrefixCache(blocked, 10**7).put(AB, make(1), ORIGINAL, TRACES)
    assert PrefixCache(blocked, 10**7).longest(AB, ORIGINAL) is None


@pytest.mark.parametrize("file", ["model.safetensors", "model.json"])
@pytest.mark.parametrize(
    "damage", ["truncated", "one bit", "garbage", "empty", "missing", "another's"]
)
def test_a_damaged_entry_is_a_miss_and_leaves(tmp_path: Path, file: str, damage: str) -> None:
    cache = PrefixCache(tmp_path, 10**7)
    other = Pipeline((A, C))
    cache.put(Pipeline((A,)), make(1), ORIGINAL, TRACES[:1])
    cache.put(AB, make(2), ORIGINAL, TRACES)
    cache.put(other, make(3), ORIGINAL, TRACES)
    path = entry_of(tmp_path, AB) / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "another's":
        shutil.copy(entry_of(tmp_path, other) / file, path)
    else:
        flipped = bytearray(data)
        flipped[len(data) * 3 // 4] ^= 4
        path.write_bytes(
            {"truncated": data[:-7], "one bit": flipped, "garbage": os.urandom(99), "empty": b""}[
                damage
            ]
        )
    found = cache.longest(AB, ORIGINAL)
    assert found
    assert found[0] == 1, "the shorter prefix serves"
    if damage != "missing":
        assert AB.key not in [p.name for p in entries(tmp_path)]
        assert not cache.put(AB, make(2), ORIGINAL, TRACES)
        assert cache.longest(AB, ORIGINAL)[0] == 2  # type: ignore[index]


def test_an_entry_of_another_model_is_a_miss(tmp_path: Path) -> None:
    """Which the context key should have prevented."""
    cache = PrefixCache(tmp_path, 10**7)
    cache.put(AB, make(2), ORIGINAL, TRACES)
    assert cache.longest(AB, nn.Conv2d(1, 1, 1)) is None


def test_the_least_recently_used_entries_leave(tmp_path: Path) -> None:
    big = 10**7
    cache = PrefixCache(tmp_path, big)
    pipelines = [Pipeline((StageSpec("s", {"n": n}),)) for n in range(6)]
    for age, pipeline in enumerate(pipelines[:4]):
        cache.put(pipeline, make(age), ORIGINAL, TRACES)
        then = time.time() - 1000 + age
        os.utime(entry_of(tmp_path, pipeline), (then, then))
    assert cache.longest(pipelines[0], ORIGINAL), "now the most recently used"
    each = max(map(size, entries(tmp_path)))
    small = PrefixCache(tmp_path, 3 * each + each // 2)
    assert not small.put(pipelines[4], make(4), ORIGINAL, TRACES)
    left = {p.key for p in pipelines if any(e.name == p.key for e in entries(tmp_path))}
    assert left == {pipelines[n].key for n in (0, 3, 4)}
    assert sum(map(size, entries(tmp_path))) <= small.limit_bytes
    other = PrefixCache(tmp_path, 2 * each, context_key="another")
    assert not other.put(pipelines[5], make(5), ORIGINAL, TRACES)
    assert len(entries(tmp_path)) == 2, "the limit is for the whole directory"


def test_leftovers_of_dead_processes_are_cleared(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, 10**7)
    cache.put(AB, make(1), ORIGINAL, TRACES)
    context = entries(tmp_path)[0].parent
    for name, age in (("old", 7200), ("new", 0)):
        leftover = context / f".unfinished-{name}"
        leftover.mkdir()
        (leftover / "model.safetensors").write_bytes(bytes(1000))
        os.utime(leftover, (time.time() - age,) * 2)
    size_of_one = size(entries(tmp_path)[0])
    PrefixCache(tmp_path, 2 * size_of_one).put(Pipeline((B,)), make(2), ORIGINAL, TRACES)
    assert not (context / ".unfinished-old").exists()
    assert (context / ".unfinished-new").exists(), "its writer may be at work"
    assert len(entries(tmp_path)) == 2


def busy(directory: Path, number: int, limit: int, failures: multiprocessing.Queue[str]) -> None:
    torch.set_num_threads(1)
    draw = random.Random(number)
    cache = PrefixCache(directory, limit)
    for _ in range(60):
        n = draw.randrange(8)
        pipeline = Pipeline((StageSpec("s", {"n": n}),))
        found = cache.longest(pipeline, ORIGINAL)
        if found and state_hash(found[1]) != state_hash(make(n)):
            failures.put(f"process {number} found another model under {n}")
        if not found:
            cache.put(pipeline, make(n), ORIGINAL, (StageTrace("s", details={"by": number}),))
    failures.put("done")


def test_many_processes_at_once(tmp_path: Path) -> None:
    PrefixCache(tmp_path, 10**7).put(AB, make(1), ORIGINAL, TRACES)
    limit = 4 * size(entries(tmp_path)[0])
    context = multiprocessing.get_context("fork")
    failures: multiprocessing.Queue[str] = context.Queue()
    processes = [
        context.Process(target=busy, args=(tmp_path, n, limit, failures)) for n in range(4)
    ]
    for p in processes:
        p.start()
    reports = [failures.get(timeout=60) for _ in processes]
    for p in processes:
        p.join()
    assert reports == ["done"] * 4
    assert [p.exitcode for p in processes] == [0] * 4
    assert sum(map(size, entries(tmp_path))) <= limit
    assert not list(tmp_path.glob("*/.unfinished-*")), "nothing half done is left"
    for entry in entries(tmp_path):
        json.loads((entry / "model.json").read_text())


def test_the_original_and_the_model_are_not_shared_with_the_entry(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, 10**7)
    original, model = copy.deepcopy(ORIGINAL), make(2)
    cache.put(AB, model, original, TRACES)
    for p in [*original.parameters(), *model.parameters()]:
        p.data.zero_()
    found = cache.longest(AB, original)
    assert found
    assert state_hash(found[1]) == state_hash(make(2))
