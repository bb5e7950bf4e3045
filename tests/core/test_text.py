"""Text for terminals: whatever acts is shown escaped, whatever can be read stays as it is."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petra.core.text import first_line, json_text, printable, shown, whole_number


@given(st.text())
def test_nothing_that_acts_is_left(text: str) -> None:
    made = printable(text, lines=True)
    assert all(c.isprintable() or c == "\n" or c.isspace() for c in made)
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in made)
    assert "\n" not in printable(text)


@pytest.mark.parametrize(
    "text", ["plain", "naïve café", "日本語　の名前", "±→…", "a b", "🦎", "שלום"]
)
def test_what_can_be_read_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "text",
    ["\x1b[31m", "\x9b31m", "\x07", "\u202e", "\u2066", "\u200b", "\ud800", "\r", "\x7f", "\u2028"],
)
def test_what_acts_is_shown(text: str) -> None:
    assert printable(f"a{text}b").isascii()
    assert printable(f"a{text}b") != f"a{text}b"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(json_values)
def test_json_is_the_same_data_and_nothing_that_acts(data: object) -> None:
    text = json_text(data)
    assert json.loads(text) == data
    assert printable(text, lines=True) == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        (" +3 ", 3),
        ("-1", -1),
        ("²", None),
        ("\u0661", None),
        ("1_0", None),
        ("", None),
        ("9" * 30, None),
        ("1.0", None),
    ],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole_number(text) == number


def test_what_was_given_is_shown_briefly() -> None:
    holds_itself: list[object] = []
    holds_itself.append(holds_itself)
    for value in (
        10 ** (2 * sys.get_int_max_str_digits()),
        [10**9999],
        "x" * 10**6,
        holds_itself,
        "\x1b",
        float("nan"),
    ):
        assert len(shown(value)) < 200
        assert shown(value).isprintable()


def test_first_lines() -> None:
    assert [first_line(t) for t in ("", "\n", "\n a\nb", "x")] == ["", "", "a", "x"]
