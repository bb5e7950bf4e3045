"""A metric of a third party: what a file weighs in a download that packs it.

Everything here is a third party's: it imports petra, and petra does not know it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

from petra.core.metric import Metric, Shown


def packed(files: Sequence[Path]) -> float:
    """Bytes of all files, each deflated."""
    return float(sum(len(zlib.compress(Path(file).read_bytes())) for file in files))


ZIPPED = Metric(
    "zipped_bytes",
    "size of the packed files",
    "bytes of all files that ship, deflated",
    "B",
    form="si",
    units={"b": 1.0, "kb": 1e3, "mb": 1e6},
    shown=Shown("packed", terminal=2, page=True, card=True),
    count=packed,
)
