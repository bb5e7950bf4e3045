"""One set of items parted into train, val and test: at random, by class, by time or by group."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Subset

from petra.core.errors import ConfigError, DataError
from petra.core.ragged import Ragged
from petra.core.rng import generator
from petra.core.text import shown
from petra.tasks.ragged import RaggedItems

TIME = "time"


def split(
    inputs: Any,
    targets: Any = None,
    *,
    parts: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    by: Any = None,
    stratify: Any = None,
) -> tuple[Any, Any, Any]:
    """Train, val and test, each in the form that came: ``petra.classification(*split(x, y))``.

    inputs: an array (n, ...), a list of n arrays, a dict or tuple of such, or, without targets, a
    `petra.ragged` or a torch Dataset, of which Subsets are made. parts: their shares. Items of a
    part keep their order.

    by: None draws at random from `seed`; "time" takes the items to be in the order of time, and the
    latest for val and test; an array (n,) of group names, such as patients, keeps each group in one
    part. stratify: labels (n,) whose shares are to be the same in all parts; every part gets some
    of each. With groups, as nearly as the groups allow.

    Raises ConfigError for parts that are no shares, and DataError for too few items, a class of
    fewer than three, a single class, and groups that leave a part less than half of its share.
    """
    n = _count(inputs, targets)
    shares = _shares(parts)
    labels = None if stratify is None else _names(stratify, n, "stratify")
    if isinstance(by, str):
        if by != TIME or labels is not None:
            raise ConfigError(
                f"by: {by!r}" + (" and stratify" if by == TIME else ""),
                hint='None, "time" (without stratify), or an array of groups, one per item',
            )
        member = _in_order(n, shares)
    elif by is not None:
        member = _by_group(_names(by, n, "by"), labels, shares, seed)
    else:
        classes = np.zeros(n, dtype=np.int64) if labels is None else _classes(labels)
        member = _at_random(classes, shares, seed)
    train, val, test = (_part(inputs, targets, np.flatnonzero(member == p)) for p in range(3))
    return train, val, test


def _shares(parts: tuple[float, float, float]) -> np.ndarray:
    try:
        shares = np.asarray(parts, dtype=np.float64)
        fit = shares.shape == (3,) and bool((shares > 0).all()) and abs(shares.sum() - 1) < 1e-6
    except (TypeError, ValueError):
        fit = False
    if not fit:
        raise ConfigError(
            f"parts: {shown(parts)}", hint="three positive shares that add up to 1: (0.6, 0.2, 0.2)"
        )
    return shares


def _in_order(n: int, shares: np.ndarray) -> np.ndarray:
    """The part of each of n items: the first for train, the last for test."""
    sizes = _whole(n, shares, np.zeros(3))
    found: np.ndarray = np.repeat(np.arange(3), sizes)
    return found


def _at_random(classes: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """The part of each item, with every class in every part."""
    random = generator(seed, "split")
    member = np.empty(len(classes), dtype=np.int64)
    owed = np.zeros(3)
    for kind in range(int(classes.max()) + 1):
        items = random.permutation(np.flatnonzero(classes == kind))
        sizes = _whole(len(items), shares, owed)
        owed += shares * len(items) - sizes
        member[items] = np.repeat(np.arange(3), sizes)
    return member


def _whole(n: int, shares: np.ndarray, owed: np.ndarray) -> np.ndarray:
    """n items, at least three, as three positive counts near n * shares; what is left over goes to
    those that are owed most, from other classes too."""
    sizes = np.maximum(np.floor(n * shares + 1e-9), 1).astype(np.int64)
    while sizes.sum() != n:
        due = n * shares + owed - sizes
        if sizes.sum() < n:
            sizes[due.argmax()] += 1
        else:
            sizes[np.where(sizes > 1, due, np.inf).argmin()] -= 1
    return sizes


def _by_group(
    groups: np.ndarray, labels: np.ndarray | None, shares: np.ndarray, seed: int
) -> np.ndarray:
    """The part of each item, with every group in one part.

    Groups come in random order, or the largest first where that leaves a part short, each to the
    part that then is nearest to its shares of all classes.
    """
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 3:
        raise DataError(
            f"by: {len(names)} groups make no three parts", hint="at least three groups are needed"
        )
    classes = np.zeros(len(codes), dtype=np.int64) if labels is None else _classes(labels)
    counts = np.zeros((len(names), int(classes.max()) + 1))
    np.add.at(counts, (codes, classes), 1)
    drawn = generator(seed, "split").permutation(len(names))
    largest_first = drawn[np.argsort(-counts[drawn].sum(1), kind="stable")]
    for order in (drawn, largest_first):
        part_of = _placed(counts, order, shares)
        sizes = np.array([counts[part_of == p].sum() for p in range(3)])
        if (sizes >= shares * len(codes) / 2).all():
            return part_of[codes]
    largest = int(counts.sum(1).argmax())
    raise DataError(
        f"by: the groups cannot be parted: {', '.join(f'{s:.0f}' for s in sizes)} items where"
        f" {', '.join(f'{s:.0f}' for s in shares * len(codes))} were asked; group"
        f" {shown(str(names[largest]), 40)} alone has {counts[largest].sum():.0f}",
        hint="ask for other parts, or for finer groups",
    )


def _placed(counts: np.ndarray, order: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The part of each group. The one chosen adds least to the sum over parts and classes of
    (have - want)^2 / items of the class."""
    totals = counts.sum(0)
    missing = shares[:, None] * totals  # (parts, classes)
    part_of = np.empty(len(counts), dtype=np.int64)
    for group in order:
        added = counts[group]
        cost = (added * (added - 2 * missing) / totals).sum(1)
        part = int(cost.argmin())
        missing[part] -= added
        part_of[group] = part
    return part_of


def _names(raw: Any, n: int, what: str) -> np.ndarray:
    """Labels or groups (n,) as text or whole numbers."""
    found = raw.detach().cpu().numpy() if isinstance(raw, Tensor) else np.asarray(raw)
    if found.shape != (n,):
        raise DataError(
            f"{what}: {type(raw).__name__} of shape {found.shape} for {n} items",
            hint="an array with one entry per item",
        )
    odd = [i for i, value in enumerate(found.tolist()) if value is None or value != value]
    if odd:
        raise DataError(
            f"{what}: item {odd[0]} has none", hint="name it, or leave the item out beforehand"
        )
    return found.astype(str) if found.dtype.kind == "O" else found


def _classes(labels: np.ndarray) -> np.ndarray:
    """Labels as numbers from 0."""
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) == 1:
        raise DataError(
            f"stratify: all {len(labels)} items are {shown(str(names[0]), 40)}",
            hint="leave stratify out; a classifier needs items of several classes",
        )
    rare = int(counts.argmin())
    if counts[rare] < 3:
        real = labels.dtype.kind == "f" and len(names) > len(labels) / 3
        hint = "leave such items out, join classes, or leave stratify out"
        raise DataError(
            f"stratify: {counts[rare]} items are {shown(str(names[rare]), 40)}, too few for three"
            " parts",
            hint="real values in classes: np.digitize(y, np.quantile(y, [0.25, 0.5, 0.75]))"
            if real
            else hint,
        )
    return codes


def _count(inputs: Any, targets: Any) -> int:
    """The number of items, which inputs and targets share."""
    if targets is None:
        if not isinstance(inputs, RaggedItems | Dataset) or not isinstance(inputs, Sized):
            raise ConfigError(
                f"split: {type(inputs).__name__} without targets",
                hint="split(inputs, targets), split(petra.ragged(...)) or split(dataset)",
            )
        n = len(inputs)
    elif isinstance(inputs, RaggedItems | Dataset):
        raise ConfigError(
            f"split: {type(inputs).__name__} and targets",
            hint="it has its targets: split(petra.ragged(...)), split(dataset)",
        )
    else:
        columns = _columns(inputs)
        for name, column in (*columns.items(), ("targets", targets)):
            if not isinstance(column, Sized) or not getattr(column, "shape", (1,)):
                raise DataError(
                    f"split: {name} is {type(column).__name__}",
                    hint="an array, or a list of arrays, with one entry per item",
                )
        n = len(targets)
        for name, column in columns.items():
            if len(column) != n:
                raise DataError(
                    f"split: {name} has {len(column)} items but there are {n} targets",
                    hint="one target per item",
                )
    if n < 3:
        raise DataError(f"split: {n} items make no three parts", hint="give at least three")
    return n


def _columns(inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return {repr(str(name)): column for name, column in inputs.items()}
    if isinstance(inputs, tuple):
        return {f"input {i}": column for i, column in enumerate(inputs)}
    return {"inputs": inputs}


def _part(inputs: Any, targets: Any, index: np.ndarray) -> Any:
    if isinstance(inputs, RaggedItems) and targets is None:
        return _ragged_part(inputs, index)
    if targets is None:
        return Subset(inputs, index.tolist())
    if isinstance(inputs, Mapping):
        taken: Any = {name: _take(column, index) for name, column in inputs.items()}
    elif isinstance(inputs, tuple):
        taken = tuple(_take(column, index) for column in inputs)
    else:
        taken = _take(inputs, index)
    return taken, _take(targets, index)


def _take(column: Any, index: np.ndarray) -> Any:
    """The entries of these numbers of an array, a tensor, a pandas column or frame, or a list."""
    if isinstance(column, list | tuple):
        return [column[i] for i in index]
    if hasattr(column, "iloc"):
        return column.iloc[index]
    return column[index]


def _ragged_part(items: RaggedItems, index: np.ndarray) -> RaggedItems:
    whole = items.ragged
    inside = np.zeros(len(whole), dtype=bool)
    inside[index] = True
    steps = np.repeat(inside, whole.lengths)  # `index` is sorted, and so are the steps
    values = {name: array[steps] for name, array in whole.values.items()}
    columns = {name: column[index] for name, column in whole.items.items()}
    part = Ragged(values, whole.lengths[index], whole.padding, columns)
    return RaggedItems(part, items.targets[index], items.structure)
