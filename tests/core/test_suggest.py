"""What is suggested instead of a wrong name, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import petra
from petra.config import parse_config
from petra.core.errors import ConfigError, did_you_mean
from petra.core.metric import resolve_metric
from petra.core.suggest import edits, family, nearest_name, slip_of
from petra.problem import check_metrics

STAGES = (
    "tune", "distill", "prune.depth", "prune.heads", "prune.structured", "lowrank.svd",
    "quantize.static", "quantize.dynamic",
)  # fmt: skip
WORDS = st.text("abc", max_size=5)


def naive(a: str, b: str) -> int:
    """The recurrence as it is written in the paper."""
    if not a or not b:
        return len(a) + len(b)
    found = [naive(a[:-1], b) + 1, naive(a, b[:-1]) + 1, naive(a[:-1], b[:-1]) + (a[-1] != b[-1])]
    if len(a) > 1 and len(b) > 1 and a[-1] == b[-2] and a[-2] == b[-1]:
        found.append(naive(a[:-2], b[:-2]) + 1)
    return min(found)


@given(WORDS, WORDS)
def test_edits_are_those_of_the_recurrence(a: str, b: str) -> None:
    assert edits(a, b) == edits(b, a) == naive(a, b)


@pytest.mark.parametrize(
    ("got", "meant"),
    [
        ("tun", "tune"),
        ("Tune", "tune"),
        ("quantise.static", "quantize.static"),
        ("prune.strucutred", "prune.structured"),
        ("svd", "lowrank.svd"),
        ("dist", "distill"),
        ("prune", None),  # which of them?
        ("prine", None),
        ("quantize.", None),
        ("st", None),
        ("", None),
        ("x" * 10_000, None),
    ],
)
def test_only_what_is_really_near_is_suggested(got: str, meant: str | None) -> None:
    assert nearest_name(got, STAGES) == meant


def test_of_two_as_near_none_is_suggested() -> None:
    assert slip_of("bat", ["cat", "hat"]) is None
    assert nearest_name("lr", ["l1", "l2", "lrs"]) is None  # two letters say nothing


def test_a_family_is_named_in_full() -> None:
    assert family("prune", STAGES) == ("prune.depth", "prune.heads", "prune.structured")
    assert family("prune.*", STAGES) == family("PRUNE.", STAGES) == family("prune", STAGES)
    assert family("tune", STAGES) == ()
    assert family("", STAGES) == ()
    hint = did_you_mean("prune", STAGES)
    assert hint.startswith("name one of prune.depth, prune.heads, prune.structured; others: ")
    assert "did you mean" not in hint
    assert "tune" in hint


@pytest.mark.parametrize("name", ["rmse", "accuracy", "acc", "f1", "error", "loss", "mse", "auc"])
def test_a_usual_metric_is_no_slip_for_another_kind_of_metric(name: str) -> None:
    assert resolve_metric(name, where="objectives", own=None) == name  # perhaps the task's
    with pytest.raises(ConfigError) as caught:
        resolve_metric(name, where="objectives", quality="mae")
    assert "did you mean" not in caught.value.hint
    assert "'quality' is the task's metric (here mae)" in caught.value.hint


def test_slips_for_metrics_are_still_corrected() -> None:
    for name, meant in (("latncy", "latency"), ("qualty", "quality"), ("size_byte", "size_bytes")):
        with pytest.raises(ConfigError) as caught:
            resolve_metric(name, where="objectives", own=None)
        assert caught.value.hint.startswith(f"did you mean {meant!r}? allowed: ")
    with pytest.raises(ConfigError, match="did you mean 'rmse'"):
        resolve_metric("rsme", where="objectives", own=("rmse",))


def test_a_study_of_another_task_is_told_what_its_quality_is() -> None:
    import torch

    pair = torch.randn(6, 3), torch.tensor([0, 1] * 3)
    task = petra.classification(pair, pair, pair)
    config = parse_config({"workload": "digits", "constraints": ["rmse <= 0.1"]})
    with pytest.raises(ConfigError, match="constraints: unknown metric 'rmse'") as caught:
        check_metrics(config, task)
    assert "'quality' is the task's metric (here accuracy)" in caught.value.hint
    assert "did you mean" not in caught.value.hint
