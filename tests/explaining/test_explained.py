"""Explanations: what is in float and why, shares that add up, and advice that has its figures."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from explained_models import float_file, int8_file, open_pair, pair_arrays, profiled

from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.profile import FileContents, FileLayer, Profile, Profiled, Ran
from petra.core.text import json_text
from petra.core.trial import Origin, Proposal, StageTrace, Trial, TrialStatus
from petra.explaining.advice import RULES, advice_for
from petra.explaining.explain import explained
from petra.explaining.facts import Facts, facts_of
from petra.explaining.families import COMPUTE, family
from petra.explaining.match import named, orders_of, side_by_side
from petra.explaining.recording import without_recording
from petra.explaining.summary import _precision
from petra.explaining.words import in_words
from petra.runtimes.onnx_inspect import FLOAT_COMPUTE, INTEGER_COMPUTE
from petra.runtimes.onnxruntime import OnnxRuntime

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def measured(mine: Profile, base: Profile | None = None, **changes: object) -> Profiled:
    found = Profiled(
        runtime="onnxruntime",
        version="1",
        host="here",
        instruction_sets=("AVX2",),
        threads=1,
        batch=1,
        mine=mine,
        base=base,
        mine_ms=mine.traced_ms,
        base_ms=base.traced_ms if base else None,
        ratio=mine.traced_ms / base.traced_ms if base else None,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def trial(*trace: StageTrace) -> Trial:
    stages = tuple(StageSpec(one.stage, {}) for one in trace)
    metrics = {
        "quality_change": Measurement(-0.012, 0.004, 1000),
        "train_s": Measurement(3.0),
    }
    proposal = Proposal(7, Pipeline(stages), Origin(("given",)))
    return proposal.ended(TrialStatus.COMPLETE, metrics=metrics, trace=trace)


def test_an_excluded_layer_is_told_as_such() -> None:
    base = profiled(float_file())
    file, trace = int8_file("middle")
    mine = profiled(file)
    found = explained("trial 7", measured(mine, base), trial(trace))
    assert [(row.name, row.asked, row.ran) for row in found.layers] == [
        ("first", "int8", "int8"),
        ("deep", "int8", "int8"),
        ("middle", "float32", "float32"),
        ("last", "int8", "int8"),
    ]
    assert [(row.name, row.reason) for row in found.floats] == [("middle", "excluded")]
    assert "3 of 4 layers with weights compute in 8 bits; the 1 in float" in str(found)
    assert "middle (Conv 16x16x3x3)" in str(found)
    assert all(row.base_ms is not None for row in found.layers)
    assert found.cost.quality == (("validation", Measurement(-0.012, 0.004, 1000)),)
    assert "-0.0120 (95%: -0.0198 to -0.0042)" in str(found)


def test_shares_and_sums_are_those_of_the_profile() -> None:
    base = profiled(float_file())
    mine = profiled(int8_file()[0])
    found = explained("q", measured(mine, base))
    assert sum(row.ms for row in found.operators) == pytest.approx(mine.total_ms)
    assert found.recording_us == 0
    assert sum(row.share for row in found.operators) == pytest.approx(1)
    assert sum(row.base_ms or 0 for row in found.operators) == pytest.approx(base.total_ms)
    assert sum(row.count for row in found.operators) == len(mine.operators)
    layers = sum(row.ms or 0 for row in found.layers)
    compute = sum(row.ms for row in found.operators if row.family in COMPUTE)
    assert layers == pytest.approx(compute)
    assert found.explained == pytest.approx(mine.total_ms / mine.traced_ms)
    data = json.loads(json_text(found.as_dict()))
    assert [row["label"] for row in data["layers"]] == [row.label for row in found.layers]


def test_an_unfused_pair_is_found_and_hostile_names_are_text(tmp_path: Path) -> None:
    mine = OnnxRuntime().profile(open_pair(tmp_path / "p.onnx"), pair_arrays(), 20)
    found = explained("p", measured(mine))
    assert [row.ran for row in found.layers] == ["int8", "float32"]
    assert "open at its end" in found.layers[1].reason
    assert any("DequantizeLinear before open (Conv 8x8x3x3)" in text for text in found.unfused)
    text = in_words(found, everything=True)
    assert "\x1b" not in text
    assert "\\x1b[31m<script>" in text


def test_nothing_quantized_needs_no_reasons() -> None:
    mine = profiled(float_file())
    found = explained("f", measured(mine))
    assert found.floats == ()
    assert "Nothing was quantized" in str(found)
    assert found.unmatched == ""


def test_a_runtime_without_a_profile_is_explained_by_what_else_is_known() -> None:
    none = Profiled("litert", "2", "here", (), 1, 1, None, None, 1.5, refused="it has none")
    found = explained("t", none, trial(StageTrace("quantize.static", ("a",), {"b": "excluded"})))
    assert "Where the time goes is not known: it has none" in str(found)
    assert "quantize.static left in float: b: excluded" in str(found)
    assert found.advice == ()


@pytest.mark.parametrize("seed", range(20))
def test_what_recording_adds_is_taken_off_all_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.exponential(0.01, rng.integers(1, 30))
    profile = Profile(
        tuple(Ran("Add", float(t)) for t in times), FileContents(), 10, "mean", 1.0, 1.0
    )
    call = float(times.sum() * rng.uniform(0.05, 1.5))
    less, off = without_recording(profile, call)
    assert less.total_ms == pytest.approx(min(call, profile.total_ms))
    for one, t in zip(less.operators, times, strict=True):
        assert one.ms == pytest.approx(max(0.0, t - off))
    assert (off == 0) == (call >= profile.total_ms)


# ---- which layer is which ------------------------------------------------------------------------


def contents(*layers: tuple[str, tuple[int, ...], str], named: bool = False) -> FileContents:
    return FileContents(
        tuple(
            FileLayer(i, kind, f"n{i}" if named else "", weights, precision)
            for i, (kind, weights, precision) in enumerate(layers)
        )
    )


CONV, GEMM = ("Conv", (8, 8, 3, 3), "int8"), ("Gemm", (8, 4), "float32")


def test_names_come_only_where_trace_and_file_have_as_many() -> None:
    file = contents(CONV, GEMM, CONV)
    stage = StageTrace("quantize.static", ("a", "c"), {"b": "kept", "norm1": "no kernel"})
    found = named(file, [stage])
    assert found.names == {0: "a", 2: "c", 1: "b"}
    assert found.reasons == {1: "kept"}
    short = named(file, [replace(stage, touched=("a",))])
    assert short.names == {1: "b"}
    assert named(file, []).names == {}


def test_another_candidate_tells_names_where_there_is_one_order_of_that_length() -> None:
    whole = trial(StageTrace("quantize.static", ("a", "b", "c")))
    part = trial(StageTrace("quantize.static", ("a", "c"), {"b": "excluded"}))
    cut = trial(StageTrace("prune.depth", ("b",)), StageTrace("quantize.static", ("a", "c")))
    orders = orders_of([whole, part, cut, whole])
    assert orders == (("a", "b", "c"),)
    file = contents(CONV, ("MatMul", (), "float32"), GEMM, CONV)
    assert named(file, [], orders).names == {0: "a", 2: "b", 3: "c"}
    assert named(file, [], (*orders, ("x", "y", "z"))).names == {}
    assert named(contents(CONV), [], orders).names == {}


@pytest.mark.parametrize("names", [False, True])
def test_a_file_is_laid_beside_itself_layer_by_layer(names: bool) -> None:
    file = contents(CONV, GEMM, CONV, ("MatMul", (), "float32"), named=names)
    assert side_by_side(file, file) == ({0: 0, 1: 1, 2: 2, 3: 3}, "")


def test_names_lay_layers_side_by_side_where_others_are_missing() -> None:
    base = contents(CONV, GEMM, CONV, named=True)
    cut = FileContents((base.layers[0], base.layers[2]))
    assert side_by_side(cut, base)[0] == {0: 0, 1: 2}
    half = FileContents((replace(base.layers[0], name=""), *base.layers[1:]))
    assert side_by_side(half, base)[0] == {0: 0, 1: 1, 2: 2}


def test_other_layers_are_not_laid_beside() -> None:
    wider = contents(("Conv", (4, 8, 3, 3), "int8"), ("QGemm", (4, 4), "int8"))
    assert side_by_side(wider, contents(CONV, GEMM))[0] == {0: 0, 1: 1}
    pairs, why = side_by_side(contents(CONV), contents(CONV, GEMM))
    assert pairs == {}
    assert "1 layers, the untouched model's 2" in why


def test_what_petra_counts_as_arithmetic_is_in_a_family_of_it() -> None:
    for kind in (*FLOAT_COMPUTE, *INTEGER_COMPUTE):
        assert family(kind) in COMPUTE, kind
    assert family("SomethingElse") == "SomethingElse"


# ---- advice --------------------------------------------------------------------------------------

QUIET = Facts(
    runtime="onnxruntime", batch=1, stages=(), dot_products=True, ratio=0.5, operators=20,
    base_operators=20, mean_us=50.0, call_us=1000.0, border=0.0, layout=0.0, attention=0.0,
    int8_layers=5, float_between=0.0, largest_float="fc", depthwise_int8=0.0,
    depthwise_factor=None, compute_factor=0.5, decoded=0.0, unfused=0, halved=0,
)  # fmt: skip
FIRES: dict[str, dict[str, object]] = {
    "overhead": {"mean_us": 2.0},
    "borders": {"border": 0.3},
    "float between": {"float_between": 0.4},
    "no dot products": {"dot_products": False},
    "depthwise": {"depthwise_int8": 0.3, "depthwise_factor": 1.2},
    "dynamic in OpenVINO": {"runtime": "openvino", "stages": ("quantize.dynamic",)},
    "layout": {"layout": 0.2},
    "zeros": {"stages": ("prune.unstructured",)},
    "decoded": {"decoded": 0.9},
    "half": {"halved": 3},
    "attention": {"attention": 0.5},
    "more operators": {"operators": 40, "ratio": 1.1, "stages": ("lowrank.svd",)},
    "simulated": {"runtime": "torch", "unfused": 3},
    "open pairs": {"unfused": 2},
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_speaks_when_its_figures_ask_for_it_and_says_them(rule: object) -> None:
    name = rule.name  # type: ignore[attr-defined]
    said = advice_for(replace(QUIET, **FIRES[name]))  # type: ignore[arg-type]
    assert [one.rule for one in said] == [name]
    assert re.search(r"\d", said[0].text), "no advice without its figure"
    assert said[0].source
    for file in re.findall(r"benchmarks/results/([\w.-]+\.md)", said[0].source):
        assert (RESULTS / file).is_file()


def test_a_candidate_without_such_figures_gets_no_advice() -> None:
    assert advice_for(QUIET) == ()
    assert advice_for(None) == ()


@pytest.mark.parametrize(
    ("file", "figures"),
    [
        ("minilm-sst2.md", ("1.568", "0.388", "0.376 ", "0.396", "0.475", "0.417")),
        ("cifar10-resnet20-avx2.md", ("0.613",)),
        ("cifar10-resnet20.md", ("0.413", "276.5", "0.442", "196.2")),
        ("own-model.md", ("| 0.37 | 46.5", "| 0.41 | 46.5", "| 0.99 | 48.7")),
        ("half-precision.md", ("0.509", "1.226", "0.519")),
    ],
)
def test_the_figures_that_rules_quote_are_in_the_committed_results(
    file: str, figures: tuple[str, ...]
) -> None:
    text = (RESULTS / file).read_text()
    for figure in figures:
        assert figure in text


def test_figures_are_of_the_call_as_it_ships_not_of_the_recorded_one() -> None:
    operators = tuple(Ran("Relu", 0.004, "float32") for _ in range(10))
    mine = Profile(operators, FileContents(), 10, "mean", 1.0, 0.09)
    found = facts_of(None, measured(mine, mine_ms=0.02), (), ())
    assert found is not None
    assert asdict(found)["mean_us"] == pytest.approx(2.0)


def test_of_layers_without_weights_nothing_is_claimed() -> None:
    bare: Any = SimpleNamespace(weights=(), in_float=True, share=0.5)
    (said,) = _precision([bare], quantized=True)
    assert "cannot be read off" in said
