"""Which method when: the guide, families of stages, and where a stage may stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cli_calls import petra, refused

from petra.methods.guide import GUIDE, guide_markdown
from petra.methods.table import STAGES
from petra.space.effects import INITIAL_FACTS
from petra.space.order import order_in_words
from petra.space.space import Space

PAGE = Path(__file__).parents[2] / "docs" / "which-method.md"


def test_what_it_says_to_start_with_is_legal_and_leaves_no_stage_out() -> None:
    space = Space({name: STAGES.get(name).card() for name in STAGES.names()}, max_length=6)
    for one in GUIDE:
        space.normalize(one.start, where=f"{one.model}, {one.aim}")
    named = " ".join([str(one.start) + one.words for one in GUIDE])
    assert [name for name in STAGES.names() if name not in named] == []


def test_rows_of_a_model_stand_together_and_none_is_there_twice() -> None:
    kinds = [one.model for one in GUIDE]
    assert len(set(kinds)) == sum(a != b for a, b in zip(kinds, [None, *kinds], strict=False))
    assert len({(one.model, one.aim) for one in GUIDE}) == len(GUIDE)


def test_the_terminal_begins_with_it() -> None:
    text = petra("methods").output
    assert text.index("my model is") < text.index("All stages")
    flat = " ".join(text.split())
    assert "float weights" not in flat
    assert "plain layers" not in flat
    listed = json.loads(petra("methods", "--guide", "--json").output)
    assert [row["aim"] for row in listed] == [one.aim for one in GUIDE]
    assert listed[0]["start"] == [{"stage": "quantize.static"}]
    alone = petra("methods", "--guide").output
    assert "my model is" in alone
    assert "All stages" not in alone
    refused(petra("methods", "tune", "--guide"), "--guide, and a stage")


def test_the_page_has_the_same_table() -> None:
    assert guide_markdown() in PAGE.read_text(), "write guide_markdown() into the page"


def test_a_family_is_listed() -> None:
    family = [name for name in STAGES.names() if name.startswith("prune.")]
    for given in ("prune", "prune.", "prune.*"):
        assert [m["name"] for m in json.loads(petra("methods", given, "--json").output)] == family
    text = petra("methods", "prune").output
    assert all(name in text for name in family)
    assert "tune" not in text.replace("fine-tun", "")
    refused(petra("methods", "prine"), "unknown stage 'prine'", "allowed: ")
    assert "did you mean" not in petra("methods", "prine").stderr
    refused(petra("methods", "structured"), "did you mean 'prune.structured'")


def expanded(words: str, phrase: str) -> set[str]:
    """The stages that a phrase such as 'not after a, b.* or c' names."""
    found = re.search(rf"{phrase} ([^;]+)", words)
    if not found:
        return set()
    names = set()
    for word in re.split(r", | or ", found[1]):
        stem = word.removesuffix("*")
        names |= {n for n in STAGES.names() if n == word or (word != stem and n.startswith(stem))}
    return names


def test_the_words_for_an_order_are_what_the_declarations_mean() -> None:
    effects = {name: STAGES.get(name).effects for name in STAGES.names()}
    for name, mine in effects.items():
        words = order_in_words(name, effects)
        needed = expanded(words, "only after")
        banned = expanded(words, "not after") | ({name} if "once at most" in words else set())
        wanted = mine.needs - INITIAL_FACTS
        for other, its in effects.items():
            facts = its.after(INITIAL_FACTS) | wanted
            assert (not mine.objection(facts)) == (other not in banned), (name, other)
        assert needed == {n for n, its in effects.items() if wanted and its.gives >= wanted}
        able = {n for n, e in effects.items() if n != name and not e.needs & mine.removes}
        if "nothing may follow" in words:
            assert able == set()
        elif follow := re.search(r"only ([\w.]+) may follow", words):
            assert able == {follow[1]}
        else:
            assert len(able) > 2 or not mine.removes
