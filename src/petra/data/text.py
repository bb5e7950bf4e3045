"""Text as token numbers, by the tokenizer that lies in a model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from petra.core.errors import DataError
from petra.core.text import first_line, shown
from petra.saved_models import quiet_loading, transformers_library

Texts = Sequence[str]


def tokens(
    texts: Texts | tuple[Texts, Texts], folder: str | Path, *, length: int = 128
) -> dict[str, npt.NDArray[np.int64]]:
    """Texts as a model takes them: token numbers, mask, and whatever else the tokenizer in `folder`
    says its model wants, each int64 (n, length), by name.

    texts: n of them, or a tuple of two lists of n, whose pairs are joined. Longer ones are cut at
    `length` tokens, shorter ones padded; choose it by the longest that matters, since all of it is
    computed. Nothing is downloaded, no code in the folder is run.

    Needs the extra ``text``. Raises MissingExtra, and DataError for a folder without tokenizer, for
    what is no text, and naming the first item that is none.
    """
    columns = texts if isinstance(texts, tuple) and len(texts) == 2 else (texts,)
    listed = [_column(column, i) for i, column in enumerate(columns)]
    if len({len(column) for column in listed}) > 1:
        raise DataError(
            f"{len(listed[0])} first texts and {len(listed[1])} second ones",
            hint="a pair for each item",
        )
    encoded = _tokenizer(Path(folder))(
        *listed, padding="max_length", truncation=True, max_length=length, return_tensors="np"
    )
    return {name: np.asarray(values, np.int64) for name, values in encoded.items()}


def _column(texts: Any, number: int) -> list[str]:
    where = "texts" if not number else "second texts"
    if isinstance(texts, str):
        raise DataError(f"{where}: got one text", hint="give a list of them")
    column = list(texts)
    if not column:
        raise DataError(f"{where}: there are none", hint="give at least one")
    odd = next((i for i, text in enumerate(column) if not isinstance(text, str)), None)
    if odd is not None:
        raise DataError(
            f"{where}, item {odd}: {shown(column[odd])} is no text",
            hint="leave such items out, with their targets",
        )
    return column


def _tokenizer(folder: Path) -> Any:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", hint="the folder with the tokenizer's files")
    transformers = transformers_library()
    with quiet_loading():
        try:
            return transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # of several libraries
            raise DataError(
                f"{folder}: no tokenizer can be read: {shown(first_line(str(error)))}",
                hint="tokenizer.save_pretrained(folder) writes one",
            ) from error
