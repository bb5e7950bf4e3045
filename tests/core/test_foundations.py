"""Errors cross processes, seeds are stable, tables import late."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest

from petra.core import errors
from petra.core.errors import (
    ConfigError,
    ExportError,
    MissingExtra,
    PetraError,
    StageRefused,
    did_you_mean,
)
from petra.core.registry import Registry
from petra.core.rng import derive_seed, generator

EXAMPLES: list[PetraError] = [
    PetraError("m"),
    ConfigError("m", hint="h"),
    StageRefused("too small", layer="conv1", hint="h"),
    StageRefused("whole model"),
    ExportError("m", operator="aten::foo", hint="h"),
    MissingExtra("openvino", extra="openvino"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_errors_survive_pickling_and_copying(error: PetraError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):  # noqa: S301
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        assert again.args == error.args


def test_every_error_class_survives_pickling() -> None:
    kinds = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, PetraError)]
    assert len(kinds) >= 10
    for kind in kinds:
        error = kind("m", extra="e") if kind is MissingExtra else kind("m", hint="h")
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(again), str(again)) == (kind, str(error))


def test_messages_and_hints() -> None:
    assert str(StageRefused("too small", layer="conv1")) == "layer 'conv1': too small"
    assert str(ConfigError("m", hint="h")) == "m\n  h"
    assert did_you_mean("prun", ["prune", "tune"]) == "did you mean 'prune'? allowed: prune, tune"
    assert did_you_mean("zzz", ["prune", "tune"]) == "allowed: prune, tune"


def test_seeds_are_stable_and_distinct() -> None:
    assert derive_seed(0, "a", 1) == 2567054096787269053
    assert len({derive_seed(s, p, i) for s in range(5) for p in "ab" for i in range(5)}) == 50
    assert all(0 <= derive_seed(s) < 2**63 for s in range(100))
    assert generator(3, "x").random() == generator(3, "x").random()
    assert generator(3, "x").random() != generator(3, "y").random()


def test_a_registry_imports_on_demand_and_refuses_helpfully() -> None:
    table: Registry[object] = Registry(
        "thing", {"counter": "collections:Counter", "gone": "no.such:Thing"}
    )
    assert table.names() == ("counter", "gone")
    assert table.get("counter").__name__ == "Counter"  # type: ignore[attr-defined]
    assert table.register("mine", 3) == 3
    assert "mine" in table
    assert table.get("mine") == 3
    with pytest.raises(ConfigError, match="already registered"):
        table.register("mine", 4)
    with pytest.raises(ConfigError, match="unknown thing 'countr'") as caught:
        table.get("countr")
    assert "did you mean 'counter'" in caught.value.hint


def test_the_vocabulary_the_space_and_the_search_need_no_torch() -> None:
    modules = (
        "petra.core.pipeline, petra.core.objective, petra.core.trial, petra.space.moves,"
        " petra.moo.selection, petra.search.evolution, petra.search.table, petra.testing.toy"
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
