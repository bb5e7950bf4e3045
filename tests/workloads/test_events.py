"""Event sequences as workloads, against loops that do the same one item at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from petra.core.errors import DataError
from petra.tasks.inputs import call, prediction
from petra.tasks.ragged import RaggedItems
from petra.workloads import berka, bpi2012, credit
from petra.workloads.events import rows_of
from petra.workloads.table import WORKLOADS

RANDOM = np.random.default_rng(0)
LENGTHS = np.array([5, 2, 1, 7, 3, 4])
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
EVENTS = int(OFFSETS[-1])


def test_rows_of_items() -> None:
    starts = np.array([10, 3, 20])
    assert rows_of(starts, np.array([2, 0, 3])).tolist() == [10, 11, 20, 21, 22]


def test_beginnings_of_cases_and_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpi2012, "LONGEST", 4)
    raw = {
        "activity": RANDOM.integers(1, 7, EVENTS).astype(np.uint8),
        "offsets": OFFSETS,
        "t_seconds": np.cumsum(RANDOM.integers(0, 10_000, EVENTS)).astype(float),
    }
    cases = np.array([3, 0, 2, 5])
    items = bpi2012.beginnings(raw, cases)
    expected = []
    for case in cases:
        events = raw["activity"][OFFSETS[case] : OFFSETS[case + 1]].tolist()
        for length in range(2, len(events) + 1):
            label = events[length] - 1 if length < len(events) else bpi2012.ACTIVITIES
            expected.append((events[:length][-4:], label))
    assert len(items) == len(expected)
    for i, (events, label) in enumerate(expected):
        inputs, target = items[i]
        assert isinstance(inputs, dict)
        assert inputs["activity"].tolist() == events
        assert inputs["mask"].all()
        assert int(target) == label


def test_times_of_events() -> None:
    seconds = np.array([100.0, 100.0, 86_500.0, 50.0, 43_250.0])
    found = bpi2012.event_times({"t_seconds": seconds, "offsets": np.array([0, 3, 5])})
    gaps, since = np.expm1(10 * found[:, 0].astype(float)), np.expm1(10 * found[:, 1].astype(float))
    assert np.allclose(gaps, [0, 0, 86_400, 0, 43_200], rtol=1e-4)
    assert np.allclose(since, [0, 0, 86_400, 0, 43_200], rtol=1e-4)
    assert np.allclose(found[0, 2:], found[2, 2:], atol=1e-5), "a day later is the same time of day"
    assert np.allclose(found[3, 2:], -found[4, 2:], atol=1e-5), "half a day later the opposite one"


def made_loans() -> dict[str, np.ndarray]:
    n = len(LENGTHS)
    raw = {name: RANDOM.integers(0, count, EVENTS) for name, count in berka.CATEGORIES.items()}
    raw |= {name: RANDOM.integers(0, count, EVENTS) for name, count in berka.BINS.items()}
    raw |= {name: RANDOM.integers(0, count, n) for name, count in berka.FACTS.items()}
    return raw | {
        "offsets": OFFSETS,
        "frequency": np.array(["Monthly", "Weekly"])[np.arange(n) % 2],
        "duration": np.full(n, 12),
        "y": np.arange(n) % 2,
    }


def test_loans_have_their_own_transactions_and_facts() -> None:
    raw = made_loans()
    items = berka.loans(raw)
    for loan in range(len(LENGTHS)):
        inputs, target = items[loan]
        assert isinstance(inputs, dict)
        own = slice(OFFSETS[loan], OFFSETS[loan + 1])
        assert inputs["type"].tolist() == (raw["type"][own] + 1).tolist()
        assert np.allclose(3 * inputs["numeric"][:, 0], raw["amount_bin"][own])
        assert int(target) == raw["y"][loan]
        static = inputs["static"]
        assert len(static) == 5 + 5 + 2 + 1
        assert static[:5].argmax() == raw["loan_amount_bin"][loan]
        assert static[-1] == pytest.approx(0.2)


def test_clients_have_codes_from_one_and_amounts_of_any_sign() -> None:
    raw = {
        "seq": np.array([[[-2, -1000, 0], [8, 0, 99]]], np.float32),
        "static": np.array([[20_000, 2, 0, 3, 25]], np.float32),
    }
    found = credit.credit_columns(raw)
    assert found["status"].tolist() == [[1, 11]]
    assert np.allclose(np.expm1(10 * found["numeric"][0, 1, 1].astype(float)), 99, rtol=1e-5)
    assert found["numeric"][0, 0, 0] == pytest.approx(-np.log(1001) / 10)
    static = found["static"][0]
    assert static[2:].reshape(-1).sum() == 3, "one of each of three codes"
    assert static[2 + 2] == static[2 + 3] == static[2 + 3 + 7 + 3] == 1


def small_files() -> dict[object, dict[str, np.ndarray]]:
    """Arrays like those of the files, each of a few items."""
    n = len(LENGTHS)
    cases = {
        "activity": RANDOM.integers(1, 7, EVENTS).astype(np.uint8),
        "offsets": OFFSETS,
        "t_seconds": np.arange(EVENTS) * 60.0,
    }
    clients = {
        "seq": RANDOM.integers(0, 9, (n, 6, 3)).astype(np.float32),
        "static": np.tile(np.array([9e4, 1, 2, 1, 30], np.float32), (n, 1)),
        "y": np.arange(n) % 2,
    }
    return {bpi2012: cases, berka: made_loans(), credit: clients}


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    found = array.astype(float)
    found.reshape(-1)[0] = value
    return found


LIES = [
    (bpi2012, "activity", lambda a: with_value(a, 0), "activity: 0.0 in place 0"),
    (bpi2012, "activity", lambda a: a + 6, r"activity: \d+ in place 0"),
    (bpi2012, "activity", lambda a: a.astype(str), "activity is <U"),
    (bpi2012, "activity", lambda a: a[:0], r"activity has shape \(0,\)"),
    (bpi2012, "t_seconds", lambda a: with_value(a, np.nan), "t_seconds is missing"),
    (bpi2012, "t_seconds", lambda a: a[1:], "t_seconds has shape"),
    (bpi2012, "offsets", lambda a: a[:-1], "offsets do not part 22 events"),
    (bpi2012, "offsets", lambda a: a[::-1], "offsets do not part"),
    (bpi2012, "offsets", lambda a: np.repeat(a, 2), "offsets do not part"),
    (berka, "type", lambda a: a - 1, "type: -1 in place"),
    (berka, "balance_bin", lambda a: with_value(a, 0.5), "balance_bin: 0.5 in place 0"),
    (berka, "payments_bin", lambda a: a + 9, "payments_bin: "),
    (berka, "y", lambda a: a * 2, "y: 2 in place 1"),
    (berka, "frequency", lambda a: a[1:], "frequency has shape"),
    (berka, "offsets", lambda a: a[1:], "offsets has shape"),
    (credit, "static", lambda a: -a, "static: sex: -1.0 in place 0"),
    (credit, "static", lambda a: with_value(a, 0), "a credit limit of 0"),
    (credit, "static", lambda a: a[:, :4], "static has shape"),
    (credit, "seq", lambda a: with_value(a, 9), "seq: status: 9.0 in place 0"),
    (credit, "seq", lambda a: with_value(a, np.nan), "seq: status: nan in place 0"),
    (credit, "y", lambda a: a[1:], "seq has shape"),
]


@pytest.mark.parametrize(("module", "name", "change", "said"), LIES, ids=range(len(LIES)))
def test_numbers_that_are_no_codes_are_refused(
    tmp_path: Path, module: object, name: str, change: object, said: str
) -> None:
    raw = small_files()[module]
    np.savez(tmp_path / "a.npz", **{**raw, name: change(raw[name])})  # type: ignore[operator, arg-type]
    make = getattr(module, module.__name__.rpartition(".")[2] + "_task")  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=said) as caught:
        make(data=str(tmp_path / "a.npz"))
    assert "a.npz" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("module", "sizes"),
    [
        (credit, (18_000, 6_000, 6_000)),
        (berka, (205, 102, 102)),
        (bpi2012, None),
    ],
)
def test_the_real_events_are_read_and_understood_by_both_networks(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, module: object, sizes: tuple[int, ...] | None
) -> None:
    monkeypatch.setenv("PETRA_DATA", str(data_root))
    name = module.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    seen = {}

    stems, record = [], WORKLOADS.get(name)

    def untrained(reference: object, **_: object) -> torch.nn.Module:
        stems.append(reference.stem)  # type: ignore[attr-defined]
        return reference.initial().eval()  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(module, "trained", untrained)
    for network in ("gru", "transformer"):
        model, task = getattr(module, name)(network=network)
        assert (task.metrics()[0].name, task.maximize) == (record.metric, record.maximize)
        inputs, _ = next(task.val.batches(8))
        seen[network] = prediction(call(model, inputs))
        assert seen[network].shape == (8, bpi2012.ACTIVITIES + 1 if module is bpi2012 else 2)
        assert seen[network].isfinite().all()
    assert record.kept in stems
    assert record.files == (module.FILE,)  # type: ignore[attr-defined]
    if sizes is not None:
        assert tuple(len(split) for _, split in task.splits()) == sizes
    else:
        assert sum(len(split) for _, split in task.splits()) == 72_413 - 9_658
        assert isinstance(task.train.source, RaggedItems)
        assert task.train.source.ragged.lengths.max() == bpi2012.LONGEST
    with pytest.raises(DataError, match="did you mean 'gru'"):
        getattr(module, name)(network="gur")
