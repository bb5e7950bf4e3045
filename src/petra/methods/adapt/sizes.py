"""What of a model's outline the stage's parameters are made of: its blocks, and their width."""

from __future__ import annotations

from petra.space.domains import Integer
from petra.space.ladder import Ladder
from petra.space.outline import ModelOutline, ModuleOutline

LARGEST = Integer(0, 65536)
_WIDEST = 6144  # that a search without a model reckons with
_LEAST = (0, 1, 3, 6)
_CONTAINERS = frozenset({"ModuleList", "ModuleDict"})  # which nothing calls


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
    """The blocks, which are adapted one by one: around every attention the innermost module with
    layers besides. Of a model without, the repeated modules with layers.

    Not simply what repeats: ALBERT has one block for all layers, and a T5 of two layers as many
    stacks as blocks.
    """
    layers = [m for m in model.modules if _is_layer(m)]
    attention = [m for m in model.of_role("attention") if m.path]
    if not attention:
        return [b.path for b in model.blocks if any(_inside(m, b.path) for m in layers)]
    outer = [a for a in attention if not any(_inside(a, b.path) for b in attention)]
    besides = [m for m in layers if not any(_inside(m, a.path) for a in outer)]
    kinds = {m.path: m.kind for m in model.modules}
    found: dict[str, None] = {}
    for path in (a.path for a in outer):
        while path := path.rpartition(".")[0]:
            if kinds[path] not in _CONTAINERS and any(_inside(m, path) for m in besides):
                found[path] = None
                break
    return list(found)


def width_of(model: ModelOutline) -> int:
    """Channels of the states between blocks: what the last layer of the first block puts out; 0 for
    a model without blocks.
    """
    for block in blocks_of(model):
        widths = [m.outputs for m in model.modules if _is_layer(m) and _inside(m, block)]
        if widths:
            return widths[-1]
    return 0


def _is_layer(module: ModuleOutline) -> bool:
    """Whether it is a linear layer, of float weights or of codes."""
    return module.role in ("linear", "") and module.inputs > 0 and module.outputs > 0


def _inside(module: ModuleOutline, path: str) -> bool:
    return module.path.startswith(f"{path}.")
