"""Adapting together with other stages, through the cache, on every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adapting import ALL, KINDS, adapt, assert_folds, numbers, outputs, problem, run
from torch import nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.execute.cache import PrefixCache
from petra.methods.adapt import inserted
from petra.methods.facts import facts_of
from petra.methods.table import STAGES
from petra.model.description.state_hash import state_hash
from petra.model.outline import outline_of
from petra.space.space import Space
from petra.tasks.base import Task

DYNAMIC, INT4 = StageSpec("quantize.dynamic"), StageSpec("quantize.weights", {"bits": 4})


@pytest.fixture(scope="module")
def bert() -> tuple[nn.Module, Task]:
    return problem("bert")


def test_effects_allow_what_makes_sense(bert: tuple[nn.Module, Task]) -> None:
    outline = outline_of(bert[0])
    space = Space({n: STAGES.get(n).card(outline) for n in STAGES.names()}, max_length=4)

    def objection(*kinds: str) -> str:
        return space.objection(Pipeline(tuple(map(StageSpec, kinds))))

    for legal in (
        ("prune.heads", "adapt"),
        ("prune.structured", "adapt", "quantize.static"),
        ("lowrank.svd", "adapt", "quantize.dynamic"),
        ("adapt", "quantize.dynamic"),
        ("adapt", "quantize.qat"),
        ("adapt", "tune", "quantize.weights"),
        ("quantize.dynamic", "adapt"),
        ("prune.depth", "quantize.weights", "adapt"),
    ):
        assert objection(*legal) == "", legal
    assert "needs input gradients" in objection("quantize.static", "adapt")
    assert "needs input gradients" in objection("quantize.half", "adapt")
    assert "not on a model with adapters" in objection("adapt", "tune", "adapt")
    assert "needs float weights" in objection("quantize.dynamic", "adapt", "quantize.weights")


@pytest.mark.parametrize("base", [DYNAMIC, INT4], ids=["int8", "int4"])
def test_a_quantized_base_stays_as_it_is(base: StageSpec, bert: tuple[nn.Module, Task]) -> None:
    kinds = {"lora": 3, "serial": 3, "ia3": True, "bitfit": True, "lora_targets": "all"}
    quantized, _ = run(bert, base)
    result, (_, trace) = run(bert, base, adapt(**kinds))
    apart = trace.details["apart"]
    assert any(why.startswith("lora stays beside") for why in apart.values())
    codes = {n: t for n, t in quantized.named_parameters() if not t.is_floating_point()}
    left = [t for _, t in result.named_parameters() if not t.is_floating_point()]
    assert len(left) == len(codes)
    assert all(any(torch.equal(t, c) for t in left) for c in codes.values())
    assert not torch.equal(outputs(result, bert[1]), outputs(quantized, bert[1]))


@pytest.mark.parametrize(
    "stages",
    [
        (StageSpec("prune.depth"), adapt(serial=3)),
        (StageSpec("prune.heads"), adapt(prefix=2, lora=3)),
        (adapt(lora=3, lora_targets="all"), DYNAMIC),
        pytest.param(
            (StageSpec("prune.structured", {"ratio": 0.3}), adapt(**ALL)), marks=pytest.mark.slow
        ),
        pytest.param(
            (StageSpec("lowrank.svd", {"rule": "ratio", "ratio": 0.3}), adapt(**ALL)),
            marks=pytest.mark.slow,
        ),
        pytest.param((adapt(**ALL), StageSpec("quantize.static")), marks=pytest.mark.slow),
        pytest.param((adapt(**ALL), DYNAMIC), marks=pytest.mark.slow),
        pytest.param((adapt(**ALL), StageSpec("prune.heads")), marks=pytest.mark.slow),
    ],
    ids=lambda stages: "+".join(s.kind for s in stages),
)
def test_it_goes_together_with(
    stages: tuple[StageSpec, ...], bert: tuple[nn.Module, Task], tmp_path: Path
) -> None:
    cache = PrefixCache(tmp_path, 10**9)
    result, traces = run(bert, *stages, cache=cache)
    assert torch.isfinite(outputs(result, bert[1])).all()
    if stages[-1].kind == "adapt":
        again, cached = run(bert, *stages, cache=cache)
        assert [t.uncached for t in traces] == [""] * len(traces)
        assert all(t.cached for t in cached)
        assert state_hash(again) == state_hash(result)


def test_a_model_with_modules_is_as_after_the_stage(bert: tuple[nn.Module, Task]) -> None:
    result, _ = run(bert, adapt(serial=3))
    assert "adapters" in facts_of(result)
    assert "adapters" not in facts_of(bert[0])


# -- the cache -------------------------------------------------------------------------------------


def test_what_is_cached_is_what_changed(bert: tuple[nn.Module, Task], tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, 10**9)
    spec = adapt(**ALL, merge=False)
    first, (trace,) = run(bert, spec, cache=cache)
    assert trace.uncached == ""
    again, (found,) = run(bert, spec, cache=cache)
    assert found.cached
    assert state_hash(again) == state_hash(first)
    assert numbers(found) == numbers(trace)
    assert list(inserted(again)) == list(inserted(first))
    torch.testing.assert_close(outputs(again, bert[1]), outputs(first, bert[1]), rtol=0, atol=0)
    (file,) = tmp_path.rglob("model.safetensors")
    counts = numbers(trace)
    kept = 4 * (counts["trainable_parameters"] + counts["head_parameters"])
    assert kept < file.stat().st_size < kept + 20_000, "no frozen weight is in the file"


# -- all the architectures -------------------------------------------------------------------------

NAMES = ("roberta", "distilbert", "albert", "deberta-v2", "gpt2", "llama", "vit", "t5", "qwen2")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "bart", "beit"])
@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_every_architecture_takes_it(name: str, kind: str, tmp_path: Path) -> None:
    given = problem(name)
    params = ALL if kind == "all" else KINDS[kind]
    if name == "deberta-v2" and params.get("prefix"):
        with pytest.raises(StageRefused, match="own code"):
            run(given, adapt(**params))
        params = {**params, "prefix": 0, "serial": 3}
    if kind == "bitfit" and name in ("llama", "t5"):
        with pytest.raises(StageRefused, match="no biases"):
            run(given, adapt(**params))
        return
    if kind in ("all", "prompt") and name == "beit":
        params = {**params, "prompt": 0, "serial": 3}
    cache = PrefixCache(tmp_path, 10**9)
    apart, (trace,) = run(given, adapt(**params, merge=False), cache=cache)
    assert trace.uncached == ""
    assert_folds(apart, given[1], 1e-3)
