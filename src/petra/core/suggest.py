"""The name that somebody meant: suggested only where it is really near, and never otherwise.

Every "did you mean" of petra comes from here: a wrong suggestion costs more than none.
"""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 100  # characters that are compared
_MOST_NAMES = 2000  # that are looked through


def nearest_name(got: str, allowed: Iterable[str]) -> str | None:
    """The one of the `allowed` names that `got` stands for; None where none is near, or several are
    as near as each other.

    Near is the name in other letters' case, a slip of the pen (`slip_of`), the only name that
    begins with it (from three characters), or the only one of which it is a part between dots.
    """
    names = sorted(set(allowed))[:_MOST_NAMES]
    typed = got[:_LONGEST].strip().casefold()
    if not typed:
        return None
    same = [name for name in names if name.casefold() == typed]
    parts = [name for name in names if typed in name.casefold().split(".")]
    begun = [name for name in names if len(typed) >= 3 and name.casefold().startswith(typed)]
    for found in (same, [n] if (n := slip_of(got, names)) else [], begun, parts):
        if len(found) == 1:
            return found[0]
    return None


def slip_of(got: str, allowed: Iterable[str]) -> str | None:
    """The name from which `got` differs by a slip of the pen: a letter missing, too many, wrong or
    exchanged with its neighbour, of eight letters and more two of these, of thirteen three. None
    where there is none, or several are as near.
    """
    typed = got[:_LONGEST].strip().casefold()
    near: dict[str, int] = {}
    for name in sorted(set(allowed))[:_MOST_NAMES]:
        most = _slips(min(len(typed), len(name)))
        if abs(len(typed) - len(name)) <= most:
            distance = edits(typed, name.casefold())
            if distance <= most:
                near[name] = distance
    best = [name for name, distance in near.items() if distance == min(near.values())]
    return best[0] if len(best) == 1 else None


def family(got: str, allowed: Iterable[str]) -> tuple[str, ...]:
    """The names of which `got` is the part before a dot: all prune.* of 'prune' (or 'prune.*')."""
    stem = got[:_LONGEST].strip().removesuffix("*").removesuffix(".").casefold()
    return tuple(n for n in sorted(set(allowed)) if stem and n.casefold().startswith(f"{stem}."))


def _slips(length: int) -> int:
    return 0 if length < 3 else 1 if length < 8 else 2 if length < 13 else 3


def edits(a: str, b: str) -> int:
    """Letters to insert, delete, replace or exchange with a neighbour, each at most once, to come
    from `a` to `b` (optimal string alignment: Damerau 1964, in the form of Oommen & Loke 1997).
    O(len(a) len(b)).
    """
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            found = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                found = min(found, before[j - 2] + 1)
            row.append(found)
        before, last = last, row
    return last[-1]
