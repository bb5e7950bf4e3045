"""Parquet files and folders of Hugging Face data sets, through pyarrow.

What ``datasets`` saves is tables in Arrow's stream format beside two JSON files. They are read
here without that package and its three dozen others; nothing in them is executed, and no other file
or address that they name is opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petra.core.errors import DataError, MissingExtra
from petra.core.text import first_line, shown

if TYPE_CHECKING:
    import pandas as pd

STATE, INFO, SEVERAL = "state.json", "dataset_info.json", "dataset_dict.json"


def read_parquet(path: str | Path) -> pd.DataFrame:
    """A parquet file, or a folder of parquet files of one schema in the order of their names.

    Needs the extra ``parquet``. Raises MissingExtra and DataError.
    """
    place = Path(path)
    files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    if not files:
        raise DataError(f"{place} holds no .parquet file", hint="name a file, or their folder")
    return _frame(_table(files, _read_parquet), {}, place)


def read_datasets(folder: str | Path) -> pd.DataFrame:
    """A data set that ``save_to_disk`` of Hugging Face's ``datasets`` wrote.

    Class labels come as their names, images as they are stored (see `images`), lists as arrays.
    Needs the extra ``parquet``, and not the package ``datasets``. Raises MissingExtra, and
    DataError for a folder of several splits, of which one is to be named.
    """
    place = Path(folder)
    if (place / SEVERAL).is_file():
        splits = _json(place / SEVERAL).get("splits")
        listed = [s for s in splits if isinstance(s, str)] if isinstance(splits, list) else []
        raise DataError(
            f"{place} holds several splits: {shown(', '.join(listed))}",
            hint="read one at a time: read_datasets(folder / 'train')",
        )
    files = [place / name for name in _data_files(_json(place / STATE), place / STATE)]
    return _frame(_table(files, _read_stream), _class_names(_json(place / INFO)), place)


def _read_parquet(arrow: Any, file: str) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(file).read()


def _read_stream(arrow: Any, file: str) -> Any:
    with arrow.OSFile(file) as source, arrow.ipc.open_stream(source) as reader:
        return reader.read_all()


def _table(files: list[Path], read: Callable[[Any, str], Any]) -> Any:
    """The rows of all files, checked through: Arrow itself trusts the offsets that files state."""
    try:
        import pyarrow as arrow
    except ImportError:
        raise MissingExtra("pyarrow", extra="parquet") from None
    tables: list[Any] = []
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: no such file", hint="a path that exists")
        with _reading(file):
            table = read(arrow, str(file))
            table.validate(full=True)
        if tables and not table.schema.equals(tables[0].schema):
            raise DataError(
                f"{file}: its columns are {shown(table.schema.names)}, those of {files[0].name}"
                f" {shown(tables[0].schema.names)}, or of other types",
                hint="files that belong together have one schema",
            )
        tables.append(table)
    return arrow.concat_tables(tables)


def _frame(table: Any, names: Mapping[str, list[str]], path: Path) -> pd.DataFrame:
    if not table.num_rows:
        raise DataError(f"{path} has no rows", hint="at least one was expected")
    twice = sorted({name for name in table.schema.names if table.schema.names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: two columns {twice[0]!r}", hint="give each column its own name")
    with _reading(path):  # whole numbers beside gaps stay whole: rounded, identifiers may be one
        found = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    frame: pd.DataFrame = found.rename_axis(index="row")
    whole = {field.name for field in table.schema if str(field.type).startswith(("int", "uint"))}
    for column in names.keys() & whole:
        frame[column] = frame[column].map(dict(enumerate(names[column]))).astype(object)
    frame.attrs["path"] = str(path)
    return frame


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise DataError for what Arrow says is wrong."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(
            f"{path}: it cannot be read: {shown(first_line(str(error)))}",
            hint="is the file whole, and of this kind?",
        ) from error


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{file}: no such file",
            hint=f"a folder that save_to_disk wrote holds {STATE}, {INFO} and .arrow files",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not readable as JSON: {error}", hint="is it whole?") from error
    if not isinstance(found, dict):
        raise DataError(f"{file} holds a {type(found).__name__}", hint="a JSON object")
    return found


def _data_files(state: Mapping[str, Any], where: Path) -> list[str]:
    """The names of the Arrow files, which lie in the same folder."""
    listed = state.get("_data_files")
    entries = listed if isinstance(listed, list) else []
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise DataError(
                f"{where}: _data_files names {shown(name)}", hint="files of the same folder"
            )
    if not names or state.get("_indices_data_files"):
        raise DataError(
            f"{where}: no list of data files that are read whole",
            hint="save the data set again with a current version of datasets",
        )
    return [str(name) for name in names]


def _class_names(info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the classes by column, of columns that are class labels."""
    features = info.get("features")
    found = {}
    for column, feature in (features if isinstance(features, dict) else {}).items():
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, list) and feature.get("_type") == "ClassLabel":
            found[str(column)] = [str(name) for name in names]
    return found
