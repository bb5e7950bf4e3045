"""What adding something touches, counted in the source: ``python benchmarks/touched.py``.

Prints a table, and with ``--check`` exits with 1 where docs/architecture.md holds another one. For
every kind of thing that can be added it takes one that petra has, and counts the files under `src`
outside its own that name it, by its registered name or by its module and class; and one of a third
party in ``tests/plugins``, with the files under `src` that name that: none, or it would be no
plugin. Docstrings and comments do not count.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE, PLUGINS = ROOT / "src" / "petra", ROOT / "tests" / "plugins"
DOCUMENT = ROOT / "docs" / "architecture.md"


@dataclass(frozen=True)
class Added:
    """One of petra's own, by its name in files (a registered name and a class, or a class alone)
    and the file that it is written in; and a plugin of the same kind, with its own names.
    """

    kind: str
    names: tuple[str, ...]
    file: str
    plugin: str
    plugin_names: tuple[str, ...]


EXAMPLES = (
    Added(
        "stage",
        ("repair.batchnorm", "petra.methods.repair.batchnorm"),
        "methods/repair/batchnorm.py",
        "adapters.py",
        ("adapt.lora", "adapt.merge"),
    ),
    Added(
        "runtime",
        ("litert", "petra.runtimes.litert"),
        "runtimes/litert.py",
        "",
        (),
    ),
    Added(
        "searcher",
        ("uniform", "petra.search.uniform"),
        "search/uniform.py",
        "coordinate_descent.py",
        ("coordinate_descent", "CoordinateDescent"),
    ),
    Added(
        "move",
        ("petra.space.moves:SWAP", "SWAP"),
        "space/moves.py",
        "centre_move.py",
        ("centre_move", "CENTRE"),
    ),
    Added(
        "executor",
        ("petra.execute.local", "LocalExecutor"),
        "execute/local.py",
        "threads_executor.py",
        ("threads_executor", "ThreadsExecutor"),
    ),
    Added(
        "task",
        ("petra.tasks.regression", "Regression"),
        "tasks/regression.py",
        "multilabel.py",
        ("Tagging", "multilabel"),
    ),
    Added(
        "task, ragged",
        ("petra.tasks.regression", "Regression"),
        "tasks/regression.py",
        "ragged_classification.py",
        ("ragged_classification", "EventClassification"),
    ),
    Added("loss", ("focal", "Focal"), "tasks/class_losses.py", "polyloss.py", ("polyloss", "poly")),
    Added("metric", ("memory_mb",), "core/metric.py", "zipped.py", ("zipped_bytes",)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with docs/architecture.md")
    given = parser.parse_args()
    lines = table()
    print("\n".join(lines))
    if given.check and "\n".join(lines) not in DOCUMENT.read_text():
        sys.exit(f"{DOCUMENT.relative_to(ROOT)} holds another table: put this one there")


def table() -> list[str]:
    """The table as lines of Markdown."""
    lines = [
        "| to add a ... | for example | is written in | and named in | a plugin | its lines |"
        " files of petra's that name it |",
        "|---|---|---|---|---|---|---|",
    ]
    for added in EXAMPLES:
        others = [f for f in naming(added.names) if f != added.file]
        cells = [
            added.kind,
            f"`{re.sub(r'petra.[a-z.]+[.:]', '', added.names[0])}`",
            f"`{added.file}`",
            ", ".join(f"`{f}`" for f in others) or "nothing else",
        ]
        if added.plugin:
            count = len((PLUGINS / added.plugin).read_text().splitlines())
            cells += [f"`{added.plugin}`", str(count), str(len(naming(added.plugin_names)))]
        else:
            cells += ["it is one", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def naming(names: tuple[str, ...]) -> list[str]:
    """Files under `SOURCE` whose code names one of `names`, as they are called from there."""
    return [f for f, said in said_in().items() if any(name in said for name in names)]


@cache
def said_in() -> dict[str, frozenset[str]]:
    """What every file of petra's names: text constants but docstrings, imported modules, names."""
    files = sorted(p for p in SOURCE.rglob("*.py") if "testing" not in p.relative_to(SOURCE).parts)
    return {str(p.relative_to(SOURCE)): frozenset(_said(ast.parse(p.read_text()))) for p in files}


def _said(tree: ast.Module) -> Iterator[str]:
    quiet = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in quiet:
            yield node.value
            yield node.value.partition(":")[0]  # "module:Class", as tables have it
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.ClassDef):
            yield node.name


if __name__ == "__main__":
    main()
