"""petra methods: what the search can do to a model, and what to start with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from petra.cli.announced import lines, package_of, rows, stages_here
from petra.cli.completion import stage_names
from petra.cli.output import JsonFlag, say, say_json
from petra.core.errors import ConfigError, did_you_mean
from petra.core.suggest import family
from petra.core.text import shown

if TYPE_CHECKING:
    from petra.core.pipeline import StageSpec
    from petra.space.effects import Effects
    from petra.space.outline import ModelOutline
    from petra.space.parameters import Parameter
    from petra.space.space import StageCard


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="One stage, in full, or a family.", autocompletion=stage_names
        ),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option("--for", metavar="STUDY.yaml", help="Show what is declared for its model."),
    ] = None,
    guide: Annotated[
        bool, typer.Option("--guide", help="Only what to start with, by model and aim.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Which method when, and all stages that a pipeline is made of; with a name, its card and its
    parameters, or all of a family.

    For example:

    - `petra methods`
    - `petra methods --guide`
    - `petra methods prune`
    - `petra methods prune.structured`
    - `petra methods prune.structured --for study.yaml`

    Parameters may depend on the model: with a study file, its model is built as for `petra run`.
    """
    from petra.methods.table import STAGES

    _check_asked(name, study, guide=guide)
    if guide:
        _say_guide(as_json=as_json)
        return
    here = stages_here()
    _check_name(name, list(here))
    outline = _outline(study) if study else None
    effects = {each: stage.effects for each, stage in here.items()}
    if name is not None and name in here:
        stage = here[name]
        card, text = stage.card(outline), inspect.cleandoc(stage.__doc__ or "")
        if as_json:
            say_json(_plain(card, effects) | {"doc": text})
            return
        paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
        place = f"In a pipeline: {_place(name, effects)}."
        say(Text("\n\n".join([card.name, *paragraphs, place]) + "\n"))
        say(_parameters(card))
        return
    names = list(here) if name is None else family(name, here)
    cards = [here[each].card(outline) for each in names]
    if as_json:
        say_json([_plain(card, effects) | {"package": package_of(card.name)} for card in cards])
        return
    if name is None:
        _say_guide()
        say("\nAll stages\n")
    say(_stages(cards, effects))
    for line in lines(rows(STAGES)) if name is None else ():
        say(line)
    example = names[0] if name else "prune.structured"
    say(f"\nOne in full, with its parameters: petra methods {example}")


def _check_asked(name: str | None, study: Path | None, *, guide: bool) -> None:
    if guide and (name is not None or study is not None):
        raise ConfigError(
            "methods: --guide, and a stage or a study file besides",
            hint="petra methods --guide, or petra methods NAME",
        )


def _check_name(name: str | None, known: Sequence[str]) -> None:
    """Raise ConfigError unless it is no name, that of a stage or of a family."""
    if name is not None and name not in known and not family(name, known):
        raise ConfigError(f"methods: unknown stage {shown(name)}", hint=did_you_mean(name, known))


def _say_guide(*, as_json: bool = False) -> None:
    from petra.methods.guide import GUIDE

    if as_json:
        say_json([one.as_dict() for one in GUIDE])
        return
    say("Which method when\n")
    table = _table("my model is", "I want", "start with", "to know")
    table.columns[2].no_wrap = True
    kinds = [one.model for one in GUIDE]
    for i, one in enumerate(GUIDE):
        last = kinds[i + 1 : i + 2] != [one.model]
        kind = "" if one.model in kinds[i - 1 : i] else one.model
        start = " →\n".join(map(_started, one.start))
        table.add_row(*map(Text, (kind, one.aim, start, one.words)), end_section=last)
    say(table)
    say(
        "\nA search tries such pipelines first by itself. To try one before all others, put it"
        " under space.initial of a study file."
    )


def _started(stage: StageSpec) -> str:
    """A stage, and under it the values that are not its usual ones."""
    return "\n".join([stage.kind, *(f"  {name}: {v}" for name, v in stage.params.items())])


def _stages(cards: Sequence[StageCard], effects: Mapping[str, Effects]) -> Table:
    table = _table("stage", "what it does", "in a pipeline")
    table.columns[0].no_wrap = True
    for card in cards:
        table.add_row(*map(Text, (card.name, card.summary, _place(card.name, effects))))
    return table


def _place(name: str, effects: Mapping[str, Effects]) -> str:
    from petra.space.order import order_in_words

    return order_in_words(name, effects) or "anywhere"


def _outline(study: Path) -> ModelOutline:
    """Of the model that a study file names, as the study would take it."""
    from petra.config import load_config
    from petra.intake import examine
    from petra.model.outline import outline_of
    from petra.sources import find_modules, located, resolve_source

    places = (study.resolve().parent, Path.cwd())
    config = located(load_config(study), places)
    find_modules(config, places)
    return outline_of(examine(*resolve_source(config)).model)


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


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


def _plain(card: StageCard, effects: Mapping[str, Effects]) -> dict[str, object]:
    mine = card.effects
    return {
        "name": card.name,
        "summary": card.summary,
        "effects": {
            "needs": sorted(mine.needs),
            "forbids": sorted(mine.forbids),
            "gives": sorted(mine.gives),
            "removes": sorted(mine.removes),
        },
        "in_a_pipeline": _place(card.name, effects),
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
