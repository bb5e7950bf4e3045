"""What is stored reads back exactly, and what cannot is refused whole."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import CONFIG, HOST, make_trial

from petra.core.errors import StoreError
from petra.core.measurement import LARGEST, Measurement
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import (
    FULL,
    Failure,
    Fidelity,
    Origin,
    Proposal,
    StageTrace,
    Trial,
    TrialStatus,
)
from petra.store import layout
from petra.store.proposals import proposal_row, read_proposal
from petra.store.store import Store
from petra.store.traces import read_traces, write_traces

finite = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**62), 2**62)
counts = st.integers(0, 2**62)
numbers = st.floats(-LARGEST, LARGEST)  # what is measured
amounts = st.floats(0, LARGEST)
scalars = st.booleans() | integers | finite | st.text(max_size=20)
json_values = st.recursive(
    st.none() | scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=4)
texts = st.text(max_size=30)
measurements = st.dictionaries(
    st.text(min_size=1, max_size=12),
    st.builds(Measurement, numbers, amounts, counts, texts, texts),
    max_size=4,
)
stages = st.builds(
    StageSpec, st.text(min_size=1, max_size=10), st.dictionaries(texts, scalars, max_size=4)
)
traces = st.builds(
    StageTrace,
    stage=texts,
    touched=st.lists(texts, max_size=3).map(tuple),
    skipped=st.dictionaries(texts, texts, max_size=3),
    params_before=counts,
    params_after=counts,
    seconds=amounts,
    peak_memory_mb=amounts,
    cached=st.booleans(),
    details=json_objects,
)
origins = st.builds(
    Origin, st.lists(texts, max_size=3).map(tuple), st.none() | st.integers(0, 2**40)
)
shares = st.floats(0, 1, exclude_min=True)
fidelities = st.just(FULL) | st.builds(Fidelity, shares, shares, st.booleans())
pipelines = st.lists(stages, max_size=4).map(lambda s: Pipeline(tuple(s)))
trials = st.builds(
    Trial,
    number=st.integers(0, 2**40),
    pipeline=pipelines,
    status=st.sampled_from(TrialStatus),
    origin=origins,
    fidelity=fidelities,
    metrics=measurements,
    test=measurements,
    failure=st.none() | st.builds(Failure, texts, texts, texts, amounts),
    trace=st.lists(traces, max_size=3).map(tuple),
    artifact=st.from_regex(r"(artifacts/[0-9]{1,5}/[a-zé ]{1,9}[.]onnx)?", fullmatch=True),
    parity=st.dictionaries(texts, numbers, max_size=3),
    seconds=amounts,
    finished_at=amounts,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    batch=st.lists(
        trials, min_size=1, max_size=3, unique_by=(lambda t: t.number, lambda t: t.pipeline.key)
    )
)
def test_trials_read_back_exactly(
    batch: list[Trial], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("study")
    with Store.create(directory, {}, {}) as made:
        for trial in batch:
            made.add(trial)
    with Store.open(directory, write=False) as reader:
        read = reader.trials()
        assert read == sorted(batch, key=lambda t: t.number)
        for trial, again in zip(sorted(batch, key=lambda t: t.number), read, strict=True):
            assert list(again.metrics) == list(trial.metrics)
            # repr tells 1 from 1.0 and True, which == does not.
            assert repr(again.trace) == repr(trial.trace)
            assert again.pipeline.canonical() == trial.pipeline.canonical()
            assert reader.trial(trial.number) == trial


@settings(max_examples=100, deadline=None)
@given(
    proposal=st.builds(
        Proposal,
        number=st.integers(0, 2**40),
        pipeline=pipelines,
        origin=origins,
        fidelity=fidelities,
        told=st.lists(st.integers(0, 2**40), max_size=5).map(tuple),
    )
)
def test_proposals_read_back_exactly(proposal: Proposal) -> None:
    assert read_proposal(proposal_row(proposal)) == proposal


def test_a_trial_is_the_result_of_its_proposal(store: Store) -> None:
    trial = make_trial(1)
    proposal = Proposal(1, trial.pipeline, trial.origin, told=(0,))
    store.propose(proposal)
    for wrong in (
        replace(trial, pipeline=make_trial(2).pipeline),
        replace(trial, origin=Origin(("perturb",), 0)),
        replace(trial, fidelity=Fidelity(data=0.5)),
    ):
        with pytest.raises(StoreError, match="not the result of its proposal"):
            store.add(wrong)
    store.add(trial)
    assert (store.trials(), store.proposals()) == ([trial], [proposal])


def test_a_pipeline_runs_once_at_each_fidelity(store: Store) -> None:
    trial = make_trial(1)
    low = Fidelity(epochs=0.25)
    store.add(trial)
    store.add(replace(trial, number=2, fidelity=low))
    for again in (FULL, low):
        with pytest.raises(StoreError, match="stored already"):
            store.propose(Proposal(3, trial.pipeline, fidelity=again))
    assert [t.fidelity for t in store.trials()] == [FULL, low]


def test_an_error_message_that_is_not_unicode_is_kept_escaped(store: Store) -> None:
    name = os.fsdecode(b"w\xff.pt")
    store.add(
        make_trial(
            1, metrics={}, status=TrialStatus.FAILED, failure=Failure("tune", "OSError", name)
        )
    )
    assert store.trial(1).failure == Failure("tune", "OSError", "w\\udcff.pt")


def test_study_facts_and_notes(tmp_path: Path) -> None:
    with Store.create(tmp_path, CONFIG, HOST) as store:
        assert store.note("stop") is None
        store.set_note("stop", {"reason": "budget", "at": 1.5})
        store.set_note("stop", ["again"])
        with pytest.raises(StoreError, match="note 'x' cannot be stored"):
            store.set_note("x", math.nan)
        with pytest.raises(StoreError, match="would not read back"):
            store.set_note("x", {1: "a key JSON would turn into text"})
    with Store.open(tmp_path, write=False) as store:
        assert (store.config, store.host, store.note("stop")) == (CONFIG, HOST, ["again"])


def test_elapsed_sums_sessions(tmp_path: Path) -> None:
    with Store.create(tmp_path, {}, {}) as store:
        time.sleep(0.05)
        first = store.elapsed()
    with Store.open(tmp_path, write=False) as reader:
        closed = reader.elapsed()
        assert closed >= first >= 0.05
        time.sleep(0.02)
        assert reader.elapsed() == closed, "reading is not searching"
    with Store.open(tmp_path, write=True) as store:
        assert store.elapsed() >= closed
        time.sleep(0.05)
        store.add(make_trial(0))
        with Store.open(tmp_path, write=False) as reader:
            assert closed + 0.05 <= reader.elapsed() <= store.elapsed()


def test_the_configuration_can_be_replaced(store: Store) -> None:
    store.set_config({"budget": 2})
    assert store.config == {"budget": 2}
    assert store.host == HOST


def test_exists(tmp_path: Path) -> None:
    assert not Store.exists(tmp_path)
    path = tmp_path / layout.DATABASE_FILE
    path.touch()
    assert not Store.exists(tmp_path), "an interrupted creation"
    path.write_bytes(b"garbage, to be complained about rather than written over")
    assert Store.exists(tmp_path)
    path.unlink()
    Store.create(tmp_path, {}, {}).close()
    assert Store.exists(tmp_path)


def test_traces_of_older_stores_are_read() -> None:
    trace = StageTrace("tune", uncached="a graph is code, which is not stored")
    (row,) = json.loads(write_traces([trace], where="here"))
    assert read_traces([row]) == (trace,)
    del row["uncached"]
    assert read_traces([row]) == (replace(trace, uncached=""),)


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"quality": Measurement(math.nan)}},
        {"metrics": {"quality": Measurement(1.0), "latency_ms": Measurement(1.0, math.inf)}},
        {"test": {"quality": Measurement(-math.inf)}},
        {"seconds": math.inf},
        {"finished_at": math.nan},
        {"parity": {"max_error": math.nan}},
        {"trace": (StageTrace("tune", details={"x": object()}),)},
        {"trace": (StageTrace("tune", details={"x": (1, 2)}),)},
        {"failure": Failure("tune", "E", "m", math.inf)},
    ],
)
def test_what_cannot_be_stored_exactly_is_refused_whole(
    store: Store, changes: dict[str, object]
) -> None:
    with pytest.raises(StoreError, match=r"trial 5"):
        store.add(make_trial(5, **changes))
    assert store.trials() == []


def test_a_number_or_a_pipeline_is_stored_once(store: Store) -> None:
    store.add(make_trial(1))
    for again in (
        make_trial(1, pipeline=Pipeline()),
        make_trial(2, pipeline=make_trial(1).pipeline),
    ):
        with pytest.raises(StoreError, match="stored already"):
            store.add(again)
    assert store.trials() == [make_trial(1)]


def test_the_test_split_is_written_once(store: Store) -> None:
    store.add(make_trial(1))
    confirmed = {"quality": Measurement(0.88, 0.02, 50)}
    store.set_test(1, confirmed)
    assert store.trial(1) == make_trial(1, test=confirmed)
    with pytest.raises(StoreError, match="already"):
        store.set_test(1, {"quality": Measurement(0.99)})
    with pytest.raises(StoreError, match="trial 7 is not stored"):
        store.set_test(7, confirmed)
    with pytest.raises(StoreError, match="nan"):
        store.set_test(1, {"quality": Measurement(math.nan)})
    assert store.trial(1).test == confirmed
    with pytest.raises(StoreError, match="no trial 7"):
        store.trial(7)
