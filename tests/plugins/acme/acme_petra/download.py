import zlib
from collections.abc import Sequence
from pathlib import Path

from petra.plugins import Metric, Shown


def packed(files: Sequence[Path]) -> float:
    return float(sum(len(zlib.compress(file.read_bytes())) for file in files))


DOWNLOAD = Metric(
    "download_bytes",
    "size of the download",
    "bytes of all files that ship, deflated",
    unit="B",
    maximize=False,
    form="si",
    units={"kb": 1e3, "mb": 1e6},
    shown=Shown("download", terminal=2, page=True, card=True),
    count=packed,
)
