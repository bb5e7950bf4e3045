"""Pipelines: one spelling and one key each, whatever they were made from."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petra.core.errors import ConfigError
from petra.core.pipeline import Pipeline, StageSpec, canonical_value

KNOWN = Pipeline(
    (
        StageSpec("prune", {"ratio": 0.30000001, "norm": 1, "importance": "taylor"}),
        StageSpec("tune", {"lr": 1e-3, "freeze": True}),
    )
)
KNOWN_TEXT = (
    '[["prune",{"importance":"taylor","norm":1,"ratio":0.3}],["tune",{"freeze":true,"lr":0.001}]]'
)
KNOWN_KEY = "158eb51f772efba9197d51581e1783dca37c209826b7d2dc7cb31999687eab84"

values = st.one_of(
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
specs = st.builds(
    StageSpec,
    st.text(min_size=1, max_size=5),
    st.dictionaries(st.text(max_size=4), values, max_size=4),
)
pipelines = st.builds(Pipeline, st.lists(specs, max_size=4).map(tuple))


def test_known_key() -> None:
    assert KNOWN.canonical() == KNOWN_TEXT
    assert KNOWN.key == KNOWN_KEY
    assert Pipeline().key == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"


def test_the_key_does_not_depend_on_the_process() -> None:
    code = (
        "from petra.core.pipeline import *; import sys, json;"
        " print(Pipeline.from_list(json.load(sys.stdin)).key)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(KNOWN.as_list()),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == KNOWN_KEY


@given(pipelines)
def test_json_and_pickle_round_trips(pipeline: Pipeline) -> None:
    for again in (
        Pipeline.from_list(json.loads(json.dumps(pipeline.as_list()))),
        pickle.loads(pickle.dumps(pipeline)),  # noqa: S301
    ):
        assert again == pipeline
        assert again.key == pipeline.key
        assert hash(again) == hash(pipeline)


@given(pipelines, pipelines)
def test_equal_exactly_when_the_keys_are(a: Pipeline, b: Pipeline) -> None:
    assert (a == b) == (a.key == b.key) == (a.canonical() == b.canonical())


def test_spelling_does_not_matter_and_types_do() -> None:
    assert StageSpec("a", {"x": 1.0, "y": 2}) == StageSpec("a", {"y": 2, "x": 1.00000001})
    assert StageSpec("a", {"x": -0.0}).canonical() == StageSpec("a", {"x": 0.0}).canonical()
    assert StageSpec("a", {"x": 1}) != StageSpec("a", {"x": True})
    assert StageSpec("a", {"x": 1}) != StageSpec("a", {"x": 1.0})
    assert StageSpec("a", {"x": "1"}) != StageSpec("a", {"x": 1})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding_is_done_once(x: float) -> None:
    once = canonical_value(x)
    assert canonical_value(once) == once
    assert isinstance(once, float)
    assert math.isclose(once, x, rel_tol=1e-5)


def test_parameters_cannot_be_changed_from_outside() -> None:
    given_params: dict[str, bool | int | float | str] = {"x": 1}
    spec = StageSpec("a", given_params)
    given_params["x"] = 2
    assert spec.params["x"] == 1
    with pytest.raises(TypeError):
        spec.params["x"] = 3  # type: ignore[index]
    assert spec.replace(x=5) == StageSpec("a", {"x": 5})
    assert spec.params["x"] == 1


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, math.nan, math.inf, -math.inf])
def test_only_finite_scalars_are_parameters(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^a\.x: got"):
        StageSpec("a", {"x": value})  # type: ignore[dict-item]


def test_prefixes() -> None:
    assert [len(p) for p in KNOWN.prefixes()] == [1, 2]
    assert KNOWN.prefixes()[-1] == KNOWN
    assert KNOWN.prefix(1) == Pipeline(KNOWN.stages[:1])
    assert Pipeline().prefixes() == ()


@pytest.mark.parametrize(
    ("items", "where"),
    [
        ({}, "pipeline: got dict"),
        ([3], r"pipeline\[0\]"),
        (["a", {"params": {}}], r"pipeline\[1\]"),
        ([{"stage": 3}], r"pipeline\[0\]"),
        ([{"stage": "a", "parms": {}}], r"pipeline\[0\]"),
        ([{"stage": "a", "params": [1]}], r"pipeline\[0\]"),
    ],
)
def test_malformed_lists_are_refused_with_the_position(items: object, where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        Pipeline.from_list(items)


def test_a_bare_name_is_a_stage_without_parameters() -> None:
    assert Pipeline.from_list(["a"]) == Pipeline((StageSpec("a"),))
    assert str(Pipeline()) == "(untouched model)"
    assert (
        str(KNOWN) == "prune(importance=taylor, norm=1, ratio=0.3) -> tune(freeze=True, lr=0.001)"
    )
