"""What of a model's outline the stage's parameters are made of: its blocks, and their width."""

from __future__ import annotations

from petra.space.domains import Integer
from petra.space.ladder import Ladder
from petra.space.outline import ModelOutline, ModuleOutline

LARGEST = Integer(0, 65536)
_WIDEST = 6144  # that a search without a model reckons with
_LEAST = (0, 1, 3, 6)


def ladder(width: int) -> tuple[int, ...]:
    """The sizes of AutoPEFT (Zhou et al. 2024): 0 for nothing, 1, then 3 and its doubles up to half
    the width and the width.

    >>> ladder(768)
    (0, 1, 3, 6, 12, 24, 48, 96, 192, 384, 768)
    """
    found = {*_LEAST, width // 2, width} if width > 2 * _LEAST[-1] else {*_LEAST}
    size = 2 * _LEAST[-1]
    while size < width // 2:
        found.add(size)
        size *= 2
    return tuple(sorted(found))


def sizes_of(model: ModelOutline) -> Ladder:
    """The sizes that a module of this model may have."""
    return Ladder(ladder(width_of(model)))


ANY_SIZE = Ladder(ladder(_WIDEST))


def blocks_of(model: ModelOutline) -> list[str]:
    """The blocks with attention in them, which are adapted one by one. Where none repeats (ALBERT
    has one for all layers), what holds an attention.
    """
    attention = [m for m in model.of_role("attention") if m.path]
    found = [b.path for b in model.blocks if any(_inside(a, b.path) for a in attention)]
    if found or not attention:
        return found or [b.path for b in model.blocks if _has_linear(model, b.path)]
    outer = [a for a in attention if not any(_inside(a, b.path) for b in attention)]
    return list(dict.fromkeys(a.parent for a in outer if a.parent))


def width_of(model: ModelOutline) -> int:
    """Channels of the states between blocks: what the last linear layer of the first block puts
    out; 0 for a model without blocks.
    """
    for block in blocks_of(model):
        widths = [m.outputs for m in model.of_role("linear") if _inside(m, block)]
        if widths:
            return widths[-1]
    return 0


def _has_linear(model: ModelOutline, path: str) -> bool:
    return any(_inside(m, path) for m in model.of_role("linear"))


def _inside(module: ModuleOutline, path: str) -> bool:
    return module.path.startswith(f"{path}.")
