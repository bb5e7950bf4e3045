"""Ticks, stairs and colours of the page: laws that hold for any study."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petra.watch.drawing import _steps, round_ticks

finite = st.floats(-1e12, 1e12)


@given(finite, st.floats(1e-9, 1e12))
def test_ticks_are_round_even_and_few(low: float, span: float) -> None:
    high = low + span
    if not high > low:
        return
    ticks = round_ticks(low, high)
    slack = 1e-6 * (abs(low) + abs(high))
    assert len(ticks) <= 8
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert ticks == sorted(ticks)


@given(st.integers(1, 10**6))
def test_ticks_of_counts_are_whole(count: int) -> None:
    ticks = round_ticks(0, count, whole=True)
    assert ticks[0] == 0
    assert len(ticks) >= 2
    assert all(tick == int(tick) for tick in ticks)


def test_an_axis_without_extent_has_one_tick() -> None:
    assert round_ticks(3.0, 3.0) == [3.0]


def test_steps_turn_where_the_value_changes_and_reach_the_end() -> None:
    assert _steps([]) == []
    assert _steps([[0, 1]]) == [[0, 1]]
    assert _steps([[0, 1], [1, 1], [2, 3], [4, 3]]) == [[0, 1], [2, 1], [2, 3], [4, 3]]


# ---- contrast (WCAG 2.2, success criteria 1.4.3 and 1.4.11) --------------------------------------

CSS = (resources.files("petra.watch") / "assets" / "page.css").read_text(encoding="utf-8")
TEXTS = ("--fg", "--soft", "--accent", "--bound", "--good", "--bad")
GRAPHICS = ("--front", "--dominated", "--infeasible", "--untouched", "--bound")


def palettes() -> dict[str, dict[str, str]]:
    """The colours in the light, in the dark and on paper."""
    roots = re.findall(r":root \{([^}]*)\}", CSS)
    assert len(roots) == 3
    read = [dict(re.findall(r"(--\w+): (#[0-9a-f]{3,6})", root)) for root in roots]
    return dict(zip(("light", "dark", "print"), read, strict=True))


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_and_marks_stand_out(theme: str) -> None:
    colours = palettes()[theme]
    for ground in ("--bg", "--panel"):
        for text in TEXTS:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for mark in GRAPHICS:
        assert contrast(colours[mark], colours["--bg"]) >= 3, mark
