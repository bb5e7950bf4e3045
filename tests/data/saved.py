"""A folder as ``save_to_disk`` of Hugging Face's ``datasets`` (4 and 5) writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CLASS_LABEL = {"names": ["calm", "storm"], "_type": "ClassLabel"}


def save_to_disk(folder: Path, columns: dict[str, Any], *, files: int = 1, **features: Any) -> Path:
    """The columns in so many Arrow files, with the description of the features that have one."""
    import pyarrow as pa

    table = pa.table(columns)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{i:05}-of-{files:05}.arrow" for i in range(files)]
    size = -(-len(table) // files)
    for i, name in enumerate(names):
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as w,
        ):
            w.write_table(table.slice(i * size, size))
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder
