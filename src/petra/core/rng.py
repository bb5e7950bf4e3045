"""Random streams: each draw comes from a generator derived from (study seed, whose draw, purpose).

Deriving instead of sharing makes every stream independent of the order in which others are used,
which is what lets any number of workers, and a resumed study, see the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed, a pure function of `seed` and the words of `purpose` (SHA-256)."""
    text = "\x1f".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose: ``generator(study_seed, pipeline.key, "shuffle")``."""
    return np.random.default_rng(derive_seed(seed, *purpose))
