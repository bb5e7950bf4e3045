"""Where in a pipeline a stage may stand, in words: read off what all stages declare."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from petra.space.effects import INITIAL_FACTS, Effects

_FEW = 2  # stages that are named where nothing else may follow


def order_in_words(name: str, effects: Mapping[str, Effects]) -> str:
    """Such as 'not after quantize.*; nothing may follow': where the stage `name` may stand among
    those of `effects`, by their names. '' where it may stand anywhere.
    """
    mine = effects[name]
    wanted = mine.needs - INITIAL_FACTS
    givers = {n for n, e in effects.items() if e.gives & wanted}
    enders = {
        n
        for n, e in effects.items()
        if (e.removes & (mine.needs - wanted)) or e.gives & mine.forbids
    }
    said = [f"only after {in_a_row(families(givers, effects))}"] if wanted and givers else []
    if name in families(enders, effects):  # not said by its family's name
        said.append("once at most")
        enders -= {name}
    said += [f"not after {in_a_row(families(enders, effects))}"] if enders else []
    return "; ".join([*said, *_what_follows(name, effects)])


def _what_follows(name: str, effects: Mapping[str, Effects]) -> list[str]:
    """What may follow a stage that ends nearly everything."""
    ended = effects[name].removes
    able = {n for n, e in effects.items() if n != name and not e.needs & ended}
    if not ended or len(able) > _FEW:
        return []
    return [f"only {in_a_row(sorted(able))} may follow" if able else "nothing may follow"]


def families(names: Collection[str], known: Collection[str]) -> list[str]:
    """The names in order, in which all of a family together are 'prune.*'."""
    stems = {name.partition(".")[0] for name in names if "." in name}
    members = {stem: {n for n in known if n.startswith(f"{stem}.")} for stem in stems}
    whole = {stem for stem, all_of in members.items() if len(all_of) > 1 and all_of <= {*names}}
    return sorted({f"{stem}.*" if (stem := n.partition(".")[0]) in whole else n for n in names})


def in_a_row(words: Sequence[str]) -> str:
    """'a, b or c'."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
