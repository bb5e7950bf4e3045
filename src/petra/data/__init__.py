"""Users' own files as arrays that tasks take, split and normalised: ``petra.data.read_csv(...)``.

Files become tables (`read_csv`, `read_parquet`, `read_datasets`) or (inputs, targets) pairs
(`read_ucr`, `read_ts`, `read_npz`, `read_images`); tables become pairs (`wide_series`,
`long_series`, `event_sequences`, or `numbers`, `labels`, `arrays`, `images`); `tokens` makes arrays
of text; `split` makes three of one, `windows` of a long series, and `normalised` puts what is
learnt of the training split in front of the model. Nothing in a file is unpickled or executed.
"""

from __future__ import annotations

from petra.data.arrow import read_datasets, read_parquet
from petra.data.frames import arrays, classes, labels, numbers, vocabulary
from petra.data.normalise import Normalise, NormaliseNamed, normalised
from petra.data.npz import read_npz
from petra.data.pictures import images, read_images
from petra.data.sequences import event_sequences, long_series, wide_series
from petra.data.splits import split
from petra.data.tables import read_csv
from petra.data.text import tokens
from petra.data.time_windows import windows
from petra.data.ts import read_ts
from petra.data.ucr import read_ucr

__all__ = [
    "Normalise",
    "NormaliseNamed",
    "arrays",
    "classes",
    "event_sequences",
    "images",
    "labels",
    "long_series",
    "normalised",
    "numbers",
    "read_csv",
    "read_datasets",
    "read_images",
    "read_npz",
    "read_parquet",
    "read_ts",
    "read_ucr",
    "split",
    "tokens",
    "vocabulary",
    "wide_series",
    "windows",
]
