"""The table of moves. A new move is one function and one line here, or
``MOVES.register(move.name, move)`` in anybody's code: every search that walks then makes it.
"""

from __future__ import annotations

from petra.core.registry import Registry
from petra.space.moves import Move

MOVES: Registry[Move] = Registry(
    "move",
    {
        "add": "petra.space.moves:ADD",
        "drop": "petra.space.moves:DROP",
        "replace": "petra.space.moves:REPLACE",
        "swap": "petra.space.moves:SWAP",
        "perturb": "petra.space.moves:PERTURB",
        "resample": "petra.space.moves:RESAMPLE",
        "optimizer": "petra.space.global_moves:OPTIMIZER",
        "loss": "petra.space.global_moves:LOSS",
        "cross": "petra.space.recombination:CROSS",
        "blend": "petra.space.recombination:BLEND",
    },
)
