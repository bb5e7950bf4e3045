"""Data as people bring it: each form is taken in with the right numbers, or refused with what to
write instead."""

from __future__ import annotations

import re
from collections import UserDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from data_forms import WORDS, Items, N, X, Y, loader, make
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

from petra.core.errors import DataError
from petra.intake import examine


class Sequence:
    """Looks like a Hugging Face data set: a length and items, and no class of torch's."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i >= N:
            raise IndexError(i)
        return {"x": X[i].tolist(), "label": int(Y[i])}


class Once:
    """Yields its batches in the first pass only."""

    def __init__(self) -> None:
        self.batches = iter([(X, Y)])

    def __iter__(self) -> Iterator[object]:
        yield from self.batches


class Row(NamedTuple):
    x: Tensor
    y: int


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


ACCEPTED: dict[str, object] = {
    "NumPy": (X.numpy(), Y.numpy()),
    "NumPy in float64 and int32": (X.double().numpy(), Y.int().numpy()),
    "big-endian": (X.numpy().astype(">f4"), Y.numpy().astype(">i8")),
    "read-only": (read_only(X.numpy()), read_only(Y.numpy())),
    "negative strides": (X.flip(0).numpy()[::-1], Y.flip(0).numpy()[::-1]),
    "not contiguous": (X.transpose(1, 2).contiguous().transpose(1, 2), Y),
    "requires gradients": (X.clone().requires_grad_(), Y),
    "bfloat16-able inputs": (X.bfloat16().float().bfloat16(), Y),
    "half": (X.half(), Y),
    "nested lists": (X.tolist(), Y.tolist()),
    "a list of arrays": ([x.numpy() for x in X], Y.tolist()),
    "a list of tensors": (list(X), list(Y)),
    "labels as uint8": (X, Y.to(torch.uint8)),
    "labels as uint16": (X, Y.numpy().astype(np.uint16)),
    "labels as float": (X, Y.float()),
    "labels in a column": (X, Y[:, None]),
    "one-hot": (X, nn.functional.one_hot(Y, 3)),
    "one-hot float": (X, nn.functional.one_hot(Y, 3).float()),
    "a pandas column of labels": (X, pd.Series(Y.numpy(), index=range(100, 100 + N))),
    "a dict of arrays": {"x": X, "labels": Y},
    "a list pair": [X, Y],
    "TensorDataset": TensorDataset(X, Y),
    "a subset": Subset(TensorDataset(X, Y), range(N)),
    "a list of items": [(X[i], int(Y[i])) for i in range(N)],
    "a list of dicts": [{"x": X[i].numpy(), "y": Y[i]} for i in range(N)],
    "a list of batches": [(X[i : i + 10], Y[i : i + 10]) for i in range(0, N, 10)],
    "items with int labels": Items(lambda i: (X[i], int(Y[i]))),
    "items with NumPy labels": Items(lambda i: (X[i].numpy(), np.int32(Y[i]))),
    "items with float64 series": Items(lambda i: (X[i].double().numpy(), int(Y[i]))),
    "items of nested lists": Items(lambda i: (X[i].tolist(), Y[i])),
    "items with labels of one entry": Items(lambda i: (X[i], Y[i : i + 1])),
    "named tuples": Items(lambda i: Row(X[i], int(Y[i]))),
    "dict items": Items(lambda i: {"x": X[i], "labels": Y[i]}),
    "UserDict items": Items(lambda i: UserDict({"x": X[i], "target": Y[i]})),
    "a sequence of another library": Sequence(),
    "loader": loader(),
    "loader of dicts": loader(Items(lambda i: {"x": X[i], "label": int(Y[i])})),
    "loader of NumPy items": loader(Items(lambda i: (X[i].double().numpy(), int(Y[i])))),
    "loader that shuffles": loader(shuffle=True),
    "loader with a generator": loader(shuffle=True, generator=torch.Generator().manual_seed(3)),
    "loader with empty batches": [
        (X[:0], Y[:0]),
        (X[:30], Y[:30]),
        (X[:0], Y[:0]),
        (X[30:], Y[30:]),
    ],
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_forms_that_are_taken_as_they_come(form: str) -> None:
    model, task = make(ACCEPTED[form])
    examine(model, task)
    inputs, targets = zip(*task.val.batches(16), strict=True)
    got, labels = torch.cat(inputs), torch.cat(targets)
    assert got.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert len(task.val) == N
    order = range(N) if "shuffles" not in form and "generator" not in form else [
        int((x == X).flatten(1).all(1).nonzero()[0]) for x in got
    ]  # fmt: skip
    tolerance = 0.02 if "half" in form or "bfloat16" in form else 1e-6
    assert sorted(order) == list(range(N))
    assert torch.allclose(got, X[order], atol=tolerance)
    assert torch.equal(labels, Y[order])


REFUSED: dict[str, tuple[object, str, str]] = {
    "text": ((X, WORDS), "labels are text", r"classes=\['cat', 'dog', 'eel'\]"),
    "text in items": (Items(lambda i: (X[i], WORDS[i])), "labels are text", "classes="),
    "from one": ((X, Y + 1), "(the label is|to) 3 but the model has 3 outputs", "labels - 1"),
    "ignored labels": ((X, torch.where(Y == 2, -100, Y)), "(from|is) -100", "keep = labels >= 0"),
    "half classes": ((X, Y + 0.5), "is no class index", "petra.regression"),
    "NaN labels": ((X, torch.where(Y == 2, float("nan"), Y.float())), "is no class index", ""),
    "several classes": ((X, torch.ones(N, 3)), "nor one-hot", "argmax"),
    "a class per position": ((X, torch.zeros(N, 3, 4)), "nor one-hot", "subclass of petra.Task"),
    "labels beyond all classes": ((X, Y * 1e20), "is no class index", "petra.regression"),
    "integers beyond all types": ((X, [10**30] * N), "beyond 64 bits", "float"),
    "more items than can be": (
        Items(lambda i: (X[i % N], 0), n=10**15), "too many for a pass", "limit=",
    ),
    "a length that fails": (Items(lambda i: (X[i], 0), n=-1), "has no length", "__len__"),
    "a loader that is used up": (Once(), "is empty", "in every pass anew"),
    "triples": (Items(lambda i: (X[i], Y[i], i)), "item 0: 3 values", r"\(\(a, b\), target\)"),
    "two inputs in a row": (TensorDataset(X, X, Y), "3 values", r"\(\(a, b\), target\)"),
    "no label among the keys": (
        Items(lambda i: {"x": X[i], "class": Y[i]}), "keys x, class", "labels",
    ),
    "two labels": (
        Items(lambda i: {"x": X[i], "y": Y[i], "label": Y[i]}), "keys x, y, label", "one target",
    ),
    "text beside numbers": (
        Items(lambda i: {"x": X[i], "t": "a", "y": Y[i]}), "'t' is text", "remove_columns",
    ),
    "None among the items": (
        Items(lambda i: None if i == 5 else (X[i], Y[i])), "item 5: it is None", "leave",
    ),
    "None as a label": (
        Items(lambda i: (X[i], None if i == 5 else Y[i])), "item 5: targets are NoneType", "",
    ),
    "lengths": (
        Items(lambda i: (X[i][:, : 5 + i % 3], int(Y[i]))),
        r"item 1: input has shape \(3, 6\)",
        "pad",
    ),
    "a length late": (
        Items(lambda i: (X[i][:, : 6 if i == 39 else 8], int(Y[i]))), "item 39: input has", "pad",
    ),
    "a type late": (
        Items(lambda i: (X[i].int() if i == 39 else X[i], int(Y[i]))),
        "item 39: .* earlier",
        "type",
    ),
    "a key late": (
        Items(lambda i: {"x": X[i], "y": Y[i]} | ({"z": X[i]} if i == 39 else {})),
        "item 39: its inputs are",
        "same",
    ),
    "targets of several shapes": (
        Items(lambda i: (X[i], Y[: 1 + i % 2])), "item 1: targets have shapes", "",
    ),
    "ragged lists": ([[[1.0], [1.0, 2.0]], [0, 1]], "make no array", "one shape"),
    "a reading error": (
        Items(lambda i: (X[i], 1 // (i - 7))), "item 7: reading it raised ZeroDivisionError", "",
    ),
    "an index error": (
        Items(lambda i: (X[i], Y[i]), n=N + 3), "item 40: reading it raised IndexError", "",
    ),
    "a loader that fails": (
        loader(Items(lambda i: (X[i][:, : 5 + i % 3], 0))),
        "batch 0: reading it raised RuntimeError",
        "pad",
    ),
    "a loader of items": (loader(batch_size=None), "no batch axis", "target per item"),
    "targets of other lengths": ([(X, Y[:7])], "7 entries for 40 inputs", "one target"),
    "only inputs": (X, "got Tensor alone", r"\(inputs, targets\)"),
    "only a frame": (pd.DataFrame({"a": [1.0]}), "got DataFrame alone", r"\(inputs, targets\)"),
    "a path": ("data/train", "got the path", "load it"),
    "a class": (TensorDataset, "got the class TensorDataset", "make one"),
    "a function": (lambda: (X, Y), "got a function", "call it"),
    "nothing": (None, "got NoneType", "allowed"),
    "dates": ((np.array(["2001-01-01"] * N, dtype="M8[D]"), Y), "datetime64", "numbers"),
    "mixed columns": (
        (pd.DataFrame({"a": [1.0] * N, "b": ["u"] * N}), Y), "hold a str", "select_dtypes",
    ),
    "raw text": ((["a b"] * N, Y), "inputs are str", "tokenize"),
    "masked": ((np.ma.masked_array(X.numpy(), X.numpy() > 2), Y), "masked", "filled"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_forms_that_are_refused_say_what_to_write(form: str) -> None:
    source, words, hint = REFUSED[form]
    with pytest.raises(DataError, match=words) as caught:
        examine(*make(source))
    assert caught.match("(train|val|test) split")
    assert caught.value.hint or hint == ""
    assert re.search(hint, caught.value.hint)
