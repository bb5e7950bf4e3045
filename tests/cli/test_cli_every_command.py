"""What holds for every command: help, examples that can be typed, JSON, and answers to what is
wrong.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer.main
from cli_calls import petra

from petra.cli.main import app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def examples(name: str) -> list[str]:
    """What the help shows as typed."""
    text = COMMANDS[name].callback.__doc__ or ""
    return re.findall(r"^\s*- `([^`]+)`", text, flags=re.MULTILINE)


def options(name: str) -> set[str]:
    return {option for p in COMMANDS[name].params for option in p.opts if option.startswith("-")}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_names_every_option(name: str) -> None:
    result = petra(name, "--help")
    assert result.exit_code == 0
    assert result.output == petra(name, "-h").output
    assert "For example" in result.output
    shown = " ".join(result.output.split())
    assert all(option in shown for option in options(name))
    assert any(e.startswith(f"petra {name}") for e in examples(name))
    assert f" {name} " in petra("--help").output


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_typed(name: str) -> None:
    for example in examples(name):
        line = example.partition(" | ")[0]
        if not line.startswith("petra "):
            continue
        _, command, *arguments = shlex.split(line)
        context = COMMANDS[command].make_context(command, arguments)
        assert not context.args


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"watch"}))  # which serves a page
def test_it_prints_json(name: str) -> None:
    assert "--json" in options(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_option_is_refused_with_the_usage(name: str) -> None:
    result = petra(name, "--no-such-option")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "No such option: --no-such-option" in result.stderr
    assert f"petra {name}" in result.stderr or f" {name} " in result.stderr


def test_options_and_commands_are_suggested_only_where_they_are_near() -> None:
    assert "(Possible options: --json)" in " ".join(petra("doctor", "--jsn").stderr.split())
    assert "Possible options" not in petra("doctor", "--nope").stderr
    said = " ".join(petra("sho").stderr.replace("│", " ").split())
    assert "did you mean 'show'?" in said
    said = " ".join(petra("prune").stderr.replace("│", " ").split())  # no word for "run"
    assert "did you mean" not in said
    assert "No such command 'prune'; allowed: " in said


def test_version() -> None:
    assert petra("-V").output == petra("--version").output
    assert re.fullmatch(r"petra \d+\.\d+.*\n", petra("-V").output)
