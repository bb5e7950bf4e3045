"""A few seconds of the campaign of study files; every listed one is tried."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import by_command, campaign, dumped, read_here
from fuzz_contents import BYTES, STRANGE, TEXTS, VALID

from petra.config import parse_config
from petra.problem import check_settings


def test_the_file_that_is_spoilt_is_sound() -> None:
    check_settings(parse_config(VALID))


@pytest.mark.parametrize("content", [*(t.encode("utf-8", "surrogatepass") for t in TEXTS), *BYTES])
def test_listed_files_are_one_message(tmp_path: Path, content: bytes) -> None:
    assert read_here(tmp_path, "listed", content).fault == ""


@pytest.mark.parametrize("key", VALID)
def test_no_strange_value_of_any_key_escapes(tmp_path: Path, key: str) -> None:
    attacks = [
        read_here(tmp_path, "values", dumped({"workload": "digits", key: value}))
        for value in STRANGE
    ]
    assert [a.fault for a in attacks if a.fault] == []


@pytest.mark.slow
def test_the_command_refuses_and_writes_nothing(tmp_path: Path) -> None:
    for i, text in enumerate(
        (TEXTS[0], "workload: digits\nworkdir: /proc/self/mem/x", "workload: digits\ntarget: x")
    ):
        assert by_command(tmp_path / str(i), "listed", text.encode()).fault == ""


@pytest.mark.slow
def test_drawn_files(tmp_path: Path) -> None:
    attacks = list(campaign(tmp_path, seed=1, seconds=5))
    assert len(attacks) > 20
    assert [a.fault for a in attacks if a.fault] == []
