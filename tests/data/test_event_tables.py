"""Tables as series and event sequences, held to a loop over the rows."""

from __future__ import annotations

import datetime
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import petra
from petra import data
from petra.core.errors import ConfigError, DataError


def events(seed: int = 0) -> pd.DataFrame:
    """Shuffled events of 12 accounts, whose times are all different."""
    random = np.random.default_rng(seed)
    rows = []
    for account in range(12):
        for _ in range(int(random.integers(1, 9))):
            rows.append(
                {
                    "account": f"a{account}",
                    "when": float(random.random()),
                    "kind": str(random.choice(["buy", "sell", "rent"])),
                    "amount": float(random.normal()),
                    "age": 20 + account,
                    "bad": "yes" if account % 3 else "no",
                }
            )
    frame = pd.DataFrame(rows)
    return frame.iloc[random.permutation(len(frame))]


def test_events_agree_with_a_loop_over_rows() -> None:
    frame = events()
    known = data.vocabulary(frame, ["kind"])
    assert known == {"kind": ("buy", "rent", "sell")}
    found, y = data.event_sequences(
        frame,
        item="account",
        categories={"kind": known["kind"][:2]},
        numeric=["amount"],
        static=["age"],
        time="when",
        label="bad",
    )
    order = list(dict.fromkeys(frame["account"]))
    for i, account in enumerate(order):
        own = sorted(
            (row for row in frame.to_dict("records") if row["account"] == account),
            key=lambda row: row["when"],
        )
        assert y[i] == own[0]["bad"]
        assert found["static"][i].tolist() == [own[0]["age"]]
        codes = {"buy": 1, "rent": 2, "sell": 3}  # sell is not known: one more than there are
        assert found["kind"][i].tolist() == [codes[row["kind"]] for row in own]
        times = [row["when"] for row in own]
        gaps = [0.0] + [math.log1p(b - a) for a, b in pairwise(times)]
        wanted = np.column_stack([[row["amount"] for row in own], gaps])
        np.testing.assert_allclose(found["numeric"][i], wanted, rtol=1e-6)
        assert found["numeric"][i].dtype == np.float32


def test_events_become_a_ragged_split_and_a_batch() -> None:
    frame = events()
    inputs, y = data.event_sequences(
        frame, item="account", categories=data.vocabulary(frame, ["kind"]), time="when", label="bad"
    )
    items = petra.ragged(inputs, y, padding=petra.Padding(mask="mask"))
    batch, _ = items.take(torch.tensor([0, 1]))
    assert isinstance(batch, dict)
    assert set(batch) == {"kind", "numeric", "mask"}
    assert batch["kind"].dtype == torch.int64
    assert int(batch["kind"][~batch["mask"]].abs().sum()) == 0


def test_dates_are_gaps_in_seconds() -> None:
    frame = pd.DataFrame(
        {
            "id": ["a", "a", "a"],
            "when": ["2024-02-28T23:59:00", "2024-02-29", "2024-02-29T00:00:01.5+00:00"],
            "y": ["1", "1", "1"],
        }
    )
    wanted = [0, math.log1p(60), math.log1p(1.5)]
    for column in (frame["when"], pd.to_datetime(frame["when"], format="ISO8601", utc=True)):
        found, y = data.event_sequences(
            frame.assign(when=column), item="id", time="when", target="y"
        )
        np.testing.assert_allclose(found["numeric"][0][:, 0], wanted, rtol=1e-6)
        assert y.tolist() == [1.0]


def test_spans_of_time_and_dates_of_all_kinds_are_seconds() -> None:
    day = datetime.date(2024, 2, 28)
    spans = pd.to_timedelta([10, 10 + 60], unit="s")
    for when in (spans, [day, day + datetime.timedelta(days=1)]):
        frame = pd.DataFrame({"id": ["a", "a"], "when": when, "y": ["u", "u"]})
        found, _ = data.event_sequences(frame, item="id", time="when", label="y")
        gap = math.expm1(float(found["numeric"][0][1, 0]))
        assert gap == pytest.approx(60 if when is spans else 86_400, rel=1e-4)


def test_numeric_times_keep_their_digits() -> None:
    frame = pd.DataFrame({"id": ["a"] * 2, "t": ["1700000000", "1700000001"], "y": ["u"] * 2})
    found, _ = data.event_sequences(frame, item="id", time="t", label="y")
    np.testing.assert_allclose(found["numeric"][0][1, 0], math.log(2), rtol=1e-6)


WRONG = [
    ({"when": [1, "soon", 3]}, {"time": "when"}, "row 1, column 'when': 'soon' is no time"),
    ({"when": ["2024-01-01", "", "x"]}, {"time": "when"}, "row 1, column 'when': no time"),
    ({"id": ["a", None, "a"]}, {}, "row 1, column 'id': no item"),
    ({"y": ["u", "v", "u"]}, {}, "row 1, column 'y': v, an earlier row of the same item has u"),
    ({"age": [1, 1, 2]}, {"static": ["age"]}, "row 2, column 'age': 2.0, an earlier row"),
    ({"x": [1, 2, "?!"]}, {}, "row 2, column 'x': '?!' is no number"),
    ({"y": ["u", "", "u"]}, {}, "row 1, column 'y': no label"),
]


@pytest.mark.parametrize(("change", "options", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named(change: dict[str, Any], options: dict[str, Any], said: str) -> None:
    frame = pd.DataFrame({"id": ["a"] * 3, "x": [1, 2, 3], "y": ["u"] * 3}).assign(**change)
    with pytest.raises(DataError) as caught:
        data.event_sequences(frame, item="id", numeric=["x"], label="y", **options)
    assert said in caught.value.message


def test_wrong_arguments() -> None:
    frame = pd.DataFrame({"id": ["a"], "numeric": ["x"], "y": ["u"]})
    with pytest.raises(ConfigError, match="neither is given"):
        data.event_sequences(frame, item="id", numeric=["y"])
    with pytest.raises(ConfigError, match="both are given"):
        data.event_sequences(frame, item="id", label="y", target="y")
    with pytest.raises(ConfigError, match="no columns"):
        data.event_sequences(frame, item="id", label="y")
    with pytest.raises(ConfigError, match="the name of another input"):
        data.event_sequences(frame, item="id", label="y", categories={"numeric": ["x"]})
    with pytest.raises(ConfigError, match="categories: id"):
        data.event_sequences(frame, item="id", label="y", categories={"id": ["x", "x"]})
    with pytest.raises(DataError, match="no rows"):
        data.event_sequences(frame[:0], item="id", numeric=["numeric"], label="y")
    for option in ("numeric", "static"):
        with pytest.raises(ConfigError, match=f"{option}: 'age'") as caught:
            data.event_sequences(
                frame.assign(age=1), item="id", time="age", label="y", **{option: "age"}
            )
        assert caught.value.hint == "a list of names: ['age']"
    with pytest.raises(ConfigError, match="channels: 'age'"):
        data.long_series(frame.assign(age=1), item="id", channels="age", label="y")
    with pytest.raises(ConfigError, match="steps: 'age'"):
        data.wide_series(frame.assign(age=1), steps="age", label="y")


def test_a_vocabulary_is_text_or_all_would_be_unknown() -> None:
    frame = pd.DataFrame({"id": ["a", "a"], "kind": [1, 2], "y": ["u", "u"]})
    with pytest.raises(ConfigError, match=r"categories: kind: \[1, 2\]") as caught:
        data.event_sequences(frame, item="id", label="y", categories={"kind": [1, 2]})
    assert "vocabulary" in caught.value.hint
    known = data.vocabulary(frame, ["kind"])
    found, _ = data.event_sequences(frame, item="id", label="y", categories=known)
    assert found["kind"][0].tolist() == [1, 2]


def test_what_only_other_splits_have_is_unknown() -> None:
    frame = events()
    parts = data.split(frame, frame["bad"], by=frame["account"], seed=1)
    train = parts[0][0]
    known = data.vocabulary(train[train["kind"] != "rent"], ["kind"])
    for rows, _ in parts:
        inputs, y = data.event_sequences(rows, item="account", categories=known, label="bad")
        codes = np.concatenate(inputs["kind"])
        assert (codes == 3).sum() == (rows["kind"] == "rent").sum()
        assert len(y) == rows["account"].nunique()


def test_long_series_agree_with_a_loop_over_rows() -> None:
    frame = events(1)
    x, y = data.long_series(
        frame, item="account", channels=["amount", "age"], time="when", target="age"
    )
    assert isinstance(x, list)
    for i, account in enumerate(dict.fromkeys(frame["account"])):
        own = frame[frame["account"] == account].sort_values("when")
        np.testing.assert_allclose(x[i], own[["amount", "age"]].to_numpy().T, rtol=1e-6)
        assert y[i] == own["age"].iloc[0]
    twice = frame.drop_duplicates("account")
    x, _ = data.long_series(twice, item="account", channels=["amount"], target="age")
    assert isinstance(x, np.ndarray)
    assert x.shape == (12, 1, 1)


def test_wide_series(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("y,t0,t1,t2\nup,1,,3\ndown,4,5,\n")
    frame = data.read_csv(tmp_path / "a.csv")
    x, y = data.wide_series(frame, label="y")
    np.testing.assert_array_equal(x, [[[1, np.nan, 3]], [[4, 5, np.nan]]])
    assert y.tolist() == ["up", "down"]
    cut, _ = data.wide_series(frame, label="y", unequal=True)
    assert [item.shape for item in cut] == [(1, 3), (1, 2)]
    some, _ = data.wide_series(frame, label="y", steps=["t0", "t1"])
    assert np.asarray(some).shape == (2, 1, 2)
    with pytest.raises(DataError, match="line 2, column 'y': 'up' is no number"):
        data.wide_series(frame, target="y")
    frame.loc[3, "t0":"t2"] = ""
    with pytest.raises(DataError, match=r"a\.csv: line 3: all values are missing"):
        data.wide_series(frame, label="y", unequal=True)


class Counter(nn.Module):
    """Logits (n, 2) of events by the mean of an embedding and of their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4, padding_idx=0)
        self.head = nn.Linear(5, 2)

    def forward(self, kind: Tensor, numeric: Tensor, mask: Tensor) -> Tensor:
        inside = mask.unsqueeze(-1).to(numeric.dtype)
        x = torch.cat([self.embed(kind), numeric], -1) * inside
        logits: Tensor = self.head(x.sum(1) / inside.sum(1))
        return logits


def test_a_table_of_events_is_taken_in() -> None:
    from petra.intake import examine

    frame = pd.concat(
        [events(s).assign(account=lambda f, s=s: f["account"] + str(s)) for s in range(6)]
    )
    inputs, y = data.event_sequences(
        frame, item="account", categories=data.vocabulary(frame, ["kind"]), time="when", label="bad"
    )
    parts = data.split(inputs, y, stratify=y)
    made = [petra.ragged(*part, padding=petra.Padding(mask="mask")) for part in parts]
    task = petra.classification(*made, classes=data.classes(y))
    model = data.normalised(Counter(), made[0], axis=-1)
    examine(model.eval(), task)
