"""petra methods: what the search can do to a model."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from petra.cli.announced import lines, package_of, rows, stages_here
from petra.cli.output import JsonFlag, say, say_json

if TYPE_CHECKING:
    from petra.space.outline import ModelOutline
    from petra.space.parameters import Parameter
    from petra.space.space import StageCard


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One stage, in full.")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option("--for", metavar="STUDY.yaml", help="Show what is declared for its model."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the stages a pipeline is made of; with a name, its card and its parameters.

    For example:

    - `petra methods`
    - `petra methods prune.structured`
    - `petra methods prune.structured --for study.yaml`

    Parameters may depend on the model: with a study file, its model is built as for `petra run`.
    """
    from petra.methods.table import STAGES

    outline = _outline(study) if study else None
    if name is not None:
        stage = STAGES.get(name)
        card, text = stage.card(outline), inspect.cleandoc(stage.__doc__ or "")
        if as_json:
            say_json(_plain(card) | {"doc": text})
            return
        paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
        say(Text("\n\n".join([card.name, *paragraphs, _effects(card)]) + "\n"))
        say(_parameters(card))
        return
    cards = [stage.card(outline) for stage in stages_here().values()]
    if as_json:
        say_json([_plain(card) | {"package": package_of(card.name)} for card in cards])
        return
    table = _table("stage", "what it does", "effects")
    for card in cards:
        table.add_row(card.name, card.summary, _effects(card))
    say(table)
    for line in lines(rows(STAGES)):
        say(line)


def _outline(study: Path) -> ModelOutline:
    """Of the model that a study file names, as the study would take it."""
    from petra.config import load_config
    from petra.intake import examine
    from petra.model.outline import outline_of
    from petra.sources import find_modules, resolve_source

    config = load_config(study)
    find_modules(config, (study.resolve().parent, Path.cwd()))
    return outline_of(examine(*resolve_source(config)).model)


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _effects(card: StageCard) -> str:
    effects = card.effects
    parts = (
        ("needs", effects.needs),
        ("not with", effects.forbids),
        ("gives", effects.gives),
        ("ends", effects.removes),
    )
    return "; ".join(f"{word} {', '.join(sorted(facts))}" for word, facts in parts if facts)


def _parameters(card: StageCard) -> Table:
    table = _table("parameter", "default", "searched", "allowed", "what it is")
    for p in card.parameters:
        allowed = "" if str(p.limits) == str(p.domain) else str(p.limits)
        table.add_row(
            p.name,
            str(p.default),
            str(p.domain),
            allowed,
            p.doc
            + (", one for each of some parts of the model" if p.is_family else "")
            + (f", when {_when(p)}" if p.when else ""),
        )
    for slot in card.slots:
        always = f", {', '.join(slot.always)} among them" if slot.always else ""
        table.add_row(f"({slot.kind})", "", "", "", f"parameters of the task's {slot.kind}{always}")
    return table


def _when(parameter: Parameter) -> str:
    return " and ".join(
        f"{name} is"
        f" {' or '.join(map(str, values)) if isinstance(values, tuple) else f'in {values}'}"
        for name, values in parameter.when.items()
    )


def _plain(card: StageCard) -> dict[str, object]:
    effects = card.effects
    return {
        "name": card.name,
        "summary": card.summary,
        "effects": {
            "needs": sorted(effects.needs),
            "forbids": sorted(effects.forbids),
            "gives": sorted(effects.gives),
            "removes": sorted(effects.removes),
        },
        "parameters": [
            {
                "name": p.name,
                "default": p.default,
                "domain": str(p.domain),
                "limits": str(p.limits),
                "doc": p.doc,
                "when": {n: list(v) if isinstance(v, tuple) else str(v) for n, v in p.when.items()},
                "scope": p.scope,
            }
            for p in card.parameters
        ],
        "brought_by_the_task": [slot.kind for slot in card.slots],
    }
