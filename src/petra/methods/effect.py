"""The least that a compressing stage has to do: one rule, and the words of its refusal.

A stage that quantizes one layer of a hundred "worked", cost a measurement, and is next to no
change. It refuses instead, and says how much it would have done, and what holds the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from petra.core.errors import StageRefused
from petra.model.surgery import is_under

LEAST = 0.05
"""Share of a model, of its multiply-accumulates or its weights, that a stage is to change."""
PART_OF_ASKED = 6
"""Where less than `LEAST` times this is asked for, the stage is to do this part of what is asked.
"""
_SHOWN = 4


def check_effect(
    verb: str, done: float, of: str, *, asked: float, rest: Mapping[str, float]
) -> None:
    """Raise StageRefused when `done`, a share of the model, is less than 5%, and less than a sixth
    of the share `asked`: "verb 3.0% of the of".

    rest: shares that are left as they are, by what stands in the way.
    """
    least = min(LEAST, asked / PART_OF_ASKED)
    if done >= least:
        return
    shown = sorted(rest.items(), key=lambda item: -item[1])[:_SHOWN]
    raise StageRefused(
        f"{verb} {done:.1%} of the {of}, and less than {least:.1%} is not worth a stage",
        hint="; ".join(f"{share:.0%}: {why}" for why, share in shown if share >= 0.005)
        or "leave the stage out",
    )


def named(path: str, reason: str) -> str:
    """A reason with the layer it is for."""
    return f"{path or 'the model itself'}: {reason}"


def own_parameters(model: nn.Module, known: Mapping[str, str]) -> dict[str, str]:
    """What to say of modules not in `known` that hold other modules and parameters of their own, as
    the code of models with bare parameters does: by path, those with a share of at least `LEAST`.
    """
    total = sum(p.numel() for p in model.parameters()) or 1
    found = {}
    for path, module in model.named_modules():
        share = sum(p.numel() for p in module.parameters(recurse=False)) / total
        if module._modules and path not in known and share >= LEAST:
            found[path or "the model itself"] = (
                f"{share:.0%} of the parameters are its own, no layer's"
            )
    return found


def inside(model: nn.Module, paths: Iterable[str]) -> tuple[str, ...]:
    """Paths of all modules in the modules at `paths`, these included."""
    chosen = frozenset(paths)
    return tuple(path for path, _ in model.named_modules() if is_under(path, chosen))


def held_elsewhere(
    model: nn.Module, touched: tuple[str, ...], skipped: Mapping[str, str]
) -> dict[str, float]:
    """Shares of the parameters that belong to no layer in `touched`, by layer and reason."""
    total = sum(p.numel() for p in model.parameters()) or 1
    seen: set[int] = set()
    shares: dict[str, float] = {}
    for path, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, own))
        if path in touched or not own:
            continue
        kind = "its own parameters" if module._modules else f"{type(module).__name__} layers"
        why = named(path, skipped.get(path, f"{kind} are not treated"))
        shares[why] = sum(p.numel() for p in own) / total
    return shares
