"""The benchmark of all domains: what is picked from a front, and what the table says of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from petra.core.measurement import Measurement
from petra.core.objective import named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Trial, TrialStatus
from petra.front import Front

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def _scripts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield
        for name in ("domains_rows", "domains_tables"):
            sys.modules.pop(name, None)


def trial(number: int, quality: float, size: float, latency: float, *, lost: float = 0.0) -> Trial:
    """`lost` is how much worse it is on the test split than on the validation split."""
    costs = {
        "size_bytes": Measurement(1000 * size),
        "latency_ratio": Measurement(latency, 0.01),
        "throughput_ratio": Measurement(1 / latency, 0.01),
    }
    metrics = {"quality": Measurement(quality, 0.01), **costs}
    test = {
        "quality": Measurement(quality - lost, 0.01),
        "quality_change": Measurement(quality - lost - 0.9, 0.002),
        **costs,
    }
    pipeline = Pipeline((StageSpec("tune", {"epochs": number}),)) if number else Pipeline()
    return Trial(number, pipeline, TrialStatus.COMPLETE, metrics=metrics, test=test)


def front(*trials: Trial, maximize: bool = True) -> Front:
    objectives = named_objectives(
        ("quality", "latency_ratio", "size_bytes"), maximize_quality=maximize
    )
    return Front.of([trial(0, 0.9, 1.0, 1.0), *trials], objectives, [])


def row(found: Front) -> object:
    from domains_rows import WITHIN_1, WITHIN_4, Row, made, pick, span

    chosen = {name: pick(found, name) for name in (WITHIN_1, WITHIN_4)}
    assert found.baseline is not None
    return Row(
        "ucr/Wafer", "default", "accuracy", True, span(found.baseline.test["quality"]), "0.9 to 1",
        "within", {k: made(found, t) for k, t in chosen.items() if t}, 9, 20.0, 0.5, "host",
    )  # fmt: skip


def test_picks_keep_to_their_bounds_and_never_look_at_the_test_split() -> None:
    from domains_rows import SMALL, TINY, WITHIN_1, WITHIN_4, pick

    members = (
        trial(1, 0.895, 0.20, 0.50, lost=0.5),  # 0.6% lost
        trial(2, 0.893, 0.50, 0.30),  # less latency, but a greater product
        trial(3, 0.870, 0.10, 0.40),  # 3.3% lost
        trial(4, 0.800, 0.05, 0.20),
    )
    found = front(*members)
    numbers = {
        name: getattr(pick(found, name), "number", None)
        for name in (WITHIN_1, WITHIN_4, TINY, SMALL)
    }
    assert numbers == {WITHIN_1: 1, WITHIN_4: 3, TINY: 4, SMALL: 1}
    assert pick(front(), WITHIN_1) is None, "the untouched model is no pick"
    errors = front(trial(1, 0.905, 0.3, 0.5), trial(2, 0.92, 0.2, 0.5), maximize=False)
    best = pick(errors, WITHIN_1)
    assert best is not None
    assert best.number == 1, "less is better"


def test_a_row_says_what_is_met_and_what_is_not() -> None:
    from domains_tables import markdown

    rows = [row(front(trial(1, 0.895, 0.20, 0.50), trial(2, 0.87, 0.1, 0.9)))]
    text = markdown(rows, ["# title"], "20 min")  # type: ignore[arg-type]
    first, second = (line for line in text.splitlines() if line.startswith("| ucr/Wafer | acc"))
    assert "0.9 to 1 (within)" in first
    assert "-0.005 (-0.0089 to -0.0011) | +0.6% | 0.200 | 0.50 (0.48-0.52)" in first
    assert first.endswith("| met | beaten |")
    assert "not beaten (latency 0.90, throughput 1.11)" in second
    for line in (
        "| there at all | 1 of 1 |",
        "| size <= 0.25, everywhere | 1 of 1 |",
        "| size <= 0.12, on most | 0 of 1 |",
        "| latency <= 0.4, on most | 0 of 1 |",
    ):
        assert line in text
    assert "Ismail Fawaz et al. 2020" in text.partition("## Published figures")[2]


def test_a_loss_that_only_the_test_split_shows_counts() -> None:
    from domains_tables import markdown

    rows = [row(front(trial(1, 0.895, 0.20, 0.50, lost=0.1)))]
    assert "| there at all | 0 of 1 |" in markdown(rows, ["# title"], "20 min")  # type: ignore[arg-type]


def test_rows_are_kept_and_read_back(tmp_path: Path) -> None:
    from domains_rows import Rows

    rows = Rows(tmp_path / "domains.json")
    first = row(front(trial(1, 0.895, 0.20, 0.50)))
    rows.put(first)  # type: ignore[arg-type]
    assert Rows(tmp_path / "domains.json").sorted() == [first]
    assert [path.name for path in tmp_path.iterdir()] == ["domains.json"]
