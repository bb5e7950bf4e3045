"""docs/plugins.md shows the package in tests/plugins/acme as it is, and what else it shows runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packages import ACME

import petra.plugins
from petra.brought import registries
from petra.callbacks.base import EVENTS
from petra.callbacks.table import CALLBACKS
from petra.config import parse_config
from petra.problem import check_settings
from petra.testing import callback_suite

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugins.md"
SECTIONS = {
    "A stage": "rounding",
    "A runtime": "packed",
    "A searcher": "nearby",
    "A metric": "download",
    "A callback": "diary",
}
MOST_LINES = 30


def blocks(language: str) -> dict[str, str]:
    """The first block of a language in each section, by its title."""
    found = {}
    for section in re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        code = re.search(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
        if code:
            found[section.partition("\n")[0]] = code[1]
    return found


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_shows_the_file_that_is_tested(title: str) -> None:
    code = (ACME / "acme_petra" / f"{SECTIONS[title]}.py").read_text()
    assert blocks("python")[title] == code
    assert len([line for line in code.splitlines() if line.strip()]) < MOST_LINES


def test_the_metadata_are_those_of_the_package() -> None:
    shown = tomllib.loads(blocks("toml")["Two ways to make it known"])
    real = tomllib.loads((ACME / "pyproject.toml").read_text())
    assert shown["project"] == real["project"]
    groups = {registry.group for registry in registries()}
    assert set(shown["project"]["entry-points"]) <= groups
    assert all(group in DOCUMENT.read_text() for group in groups)


@pytest.mark.usefixtures("acme")
def test_the_study_file_is_one() -> None:
    config = parse_config(yaml.safe_load(blocks("yaml")["Two ways to make it known"]))
    check_settings(config)


def test_what_is_registered_is_known_until_it_is_forgotten() -> None:
    names: dict[str, Any] = {}
    exec(blocks("python")["Two ways to make it known"], names)  # noqa: S102 - ours
    try:
        assert CALLBACKS.get("bell") is names["Bell"]
    finally:
        petra.plugins.forget("callback", "bell")
    assert "bell" not in CALLBACKS
    with pytest.raises(petra.PetraError, match="kind: got 'callbak'"):
        petra.plugins.register("callbak", "bell", names["Bell"])


def test_every_event_and_every_callback_is_listed() -> None:
    text = DOCUMENT.read_text()
    for event, arguments in EVENTS.items():
        assert f"| `{event}({', '.join(arguments)})` |" in text
    for name in CALLBACKS.names():
        assert f"| `{name}` |" in text


def test_the_suites_are_where_they_are_said_to_be() -> None:
    folder = Path(callback_suite.__file__).parent
    for module, name in re.findall(r"`(\w+_suites?)\.(\w+)`", DOCUMENT.read_text()):
        assert f"class {name}" in (folder / f"{module}.py").read_text()


def test_public_names_are_there_and_documented() -> None:
    for name in petra.plugins.__all__:
        found = getattr(petra.plugins, name)
        assert isinstance(found, str) or (found.__doc__ or "").strip(), name
    with pytest.raises(AttributeError):
        petra.plugins.Stages  # noqa: B018
