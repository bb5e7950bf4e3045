"""How many candidates are built side by side, with how many threads each."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from petra.config import parse_config
from petra.execute.crew import Crew
from petra.measure.host import cores


@pytest.mark.parametrize(
    ("steps", "threads"),
    [
        ({1: 1.0, 2: 0.7}, 2),
        ({1: 1.0, 2: 0.95}, 1),
        ({1: 0.03, 2: 0.15}, 1),
        ({4: 1.0}, 4),
        ({1: 1.0, 8: 0.5}, 8),
    ],
)
def test_where_the_workers_are_given_more_threads_must_be_worth_it(
    steps: dict[int, float], threads: int
) -> None:
    crew = Crew(16, given=2)
    assert crew.counts() == (1, 8)
    assert crew.threads(steps) == threads
    assert crew.workers(threads) == 2


@pytest.mark.parametrize(
    ("cores", "most", "steps", "threads", "workers"),
    [
        # Two workers train twice as much as one; two threads 1.3 times, or 1.9 times.
        (2, 4, {1: 1.0, 2: 1 / 1.3}, 1, 2),
        (2, 4, {1: 1.0, 2: 1 / 1.9}, 2, 1),
        (2, 1, {1: 1.0, 2: 1 / 1.3}, 2, 1),  # no memory for two
        # More cores than there are proposals for: the rest become threads, if that helps.
        (16, 4, {1: 1.0, 4: 0.3, 8: 0.2, 16: 0.15}, 4, 4),
        (16, 4, {1: 1.0, 4: 1.0, 8: 1.1, 16: 1.3}, 1, 4),
        (16, 4, {1: 1.0, 4: 0.25, 8: 0.125, 16: 0.0625}, 16, 1),
        (1, 4, {1: 1.0}, 1, 1),
    ],
)
def test_what_trains_most_together_is_chosen(
    cores: int, most: int, steps: dict[int, float], threads: int, workers: int
) -> None:
    crew = Crew(cores, most=most)
    assert crew.counts() == tuple(steps)
    assert crew.threads(steps) == threads
    assert crew.workers(threads) == workers


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 4),
        ({"virtual_workers": 9}, 9),
        ({"device": "cuda"}, 1),
        ({"limits": {"trial_memory": "32 GiB"}}, 2),
        ({"limits": {"trial_memory": "300 GiB"}}, 1),
    ],
)
def test_room_is_what_proposals_memory_and_a_gpu_leave(
    settings: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine of 40 GiB."""
    memory = psutil.virtual_memory()._replace(total=40 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert Crew.of(parse_config(settings)) == Crew(cores(), None, most)
    given = parse_config({**settings, "limits": {"workers": 7}})
    assert Crew.of(given).workers(1) == 7
