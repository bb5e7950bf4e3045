"""Pages of the documentation site that are made of what stands elsewhere: the start page of the
README, a card for every stage of its own declaration, result tables of the benchmarks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"

# A link in a file of the repository -> the page that shows what it leads to.
_MOVED = (
    (r"\]\(docs/", "]("),
    (r"\]\((?:\.\./)?benchmarks/results/", "](results/"),
    (r"\]\((?:\.\./)?benchmarks/(?:README\.md)?\)", "](results/index.md)"),
    (r"\]\((?:\.\./)?CHANGELOG\.md", "](changelog.md"),
    (r"\]\((?:\.\./)?README\.md", "](index.md"),
    (r"\[NOTICE\]\(NOTICE\)", "NOTICE"),
)


def on_config(config: Any) -> Any:
    """Lists the generated pages where the navigation names them."""
    made = {"METHODS": list(_methods()), "RESULTS": list(_results())}
    for entry in config.nav:
        for title, pages in entry.items():
            if isinstance(pages, str) and pages in made:
                entry[title] = [path for path, _ in made[pages]]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    pages = [
        ("index.md", _linked((ROOT / "README.md").read_text())),
        ("changelog.md", _linked((ROOT / "CHANGELOG.md").read_text())),
        *_methods(),
        *_results(),
    ]
    for path, text in pages:
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return _linked(markdown) if page.file.src_uri.count("/") == 0 else markdown


def _linked(text: str) -> str:
    for pattern, place in _MOVED:
        text = re.sub(pattern, place, text)
    return text


def _results() -> Iterator[tuple[str, str]]:
    """Every committed table as it is, after the page that says how they were made."""
    index = (ROOT / "benchmarks" / "README.md").read_text()
    yield "results/index.md", re.sub(r"\]\(results/", "](", _unlinked(index))
    for file in sorted(RESULTS.glob("*.md")):
        yield f"results/{file.name}", _unlinked(file.read_text())


def _unlinked(text: str) -> str:
    """Without links to files that are no pages, such as scripts and JSON."""
    return re.sub(r"\[([^\]]+)\]\((?!http|results/[\w-]+\.md|[\w-]+\.md|#)[^)]*\)", r"\1", text)


def _methods() -> Iterator[tuple[str, str]]:
    """A table of stages, and the card of each."""
    from petra.methods.table import STAGES

    cards = [(name, STAGES.get(name)) for name in STAGES.names()]
    head = ["# Methods", "", "`petra methods NAME` prints the same.", ""]
    table = ["| stage | what it does |", "|---|---|"]
    table += [f"| [`{name}`]({name}.md) | {stage.card(None).summary} |" for name, stage in cards]
    yield "methods/index.md", "\n".join([*head, *table, ""])
    for name, stage in cards:
        yield f"methods/{name}.md", _card(name, stage)


def _card(name: str, stage: Any) -> str:
    card, text = stage.card(None), inspect.cleandoc(stage.__doc__ or "")
    lines = [f"# {name}", "", text, "", "| parameter | default | values | what it is |"]
    lines.append("|---|---|---|---|")
    for parameter in card.parameters:
        values = str(parameter.domain).replace("|", "\\|")
        default, doc = str(parameter.default), parameter.doc.replace("|", "\\|")
        lines.append(f"| `{parameter.name}` | `{default}` | {values} | {doc} |")
    return "\n".join([*lines, ""])
