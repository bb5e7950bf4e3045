"""docs/commands.md says what is so: commands that can be typed, and the kinds of `petra init`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer.main

from petra.cli.main import app
from petra.cli.starter import STARTERS

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()


def test_every_line_that_is_shown_can_be_typed() -> None:
    commands: Any = typer.main.get_command(app)
    blocks = "".join(re.findall(r"^```\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
    lines = [shlex.split(line)[1:] for line in blocks.splitlines() if line.startswith("petra ")]
    assert len(lines) >= 5
    for name, *arguments in lines:
        if name.startswith("--"):
            assert name in {option for p in commands.params for option in p.opts}
        else:
            commands.commands[name].make_context(name, arguments)


def test_the_kinds_of_models_are_all_there() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^(|]+?) (?:\(.*\) )?\|", PAGE, flags=re.MULTILINE))
    assert rows == {name: starter.about for name, starter in STARTERS.items()}
