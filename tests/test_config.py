"""Study files: every fault is refused with its path and what is allowed; what is accepted means
what it says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petra.config import load_config, parse_config
from petra.core.errors import ConfigError
from petra.core.quantities import parse_bytes, parse_duration

FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"budgett": 1}, ["budgett: unknown key", "did you mean 'budget'"]),
    ({"budget": {"tyme": 3}}, ["budget.tyme: unknown key", "did you mean 'time'"]),
    ({"budget": {"time": "30 mn"}}, ["budget.time", "'30 min'"]),
    ({"budget": {}}, ["budget", "at least one of time, trials, generations"]),
    ({"budget": {"trials": 0}}, ["budget.trials", "greater than or equal to 1"]),
    ({"budget": {"trials": 5, "goal": "size < 3"}}, ["budget.goal", "cannot read 'size < 3'"]),
    ({"objectives": ["qualty"]}, ["objectives", "did you mean 'quality'"]),
    ({"objectives": []}, ["objectives", "at least one objective"]),
    ({"objectives": ["size", "size_bytes"]}, ["objectives", "named twice"]),
    ({"constraints": ["foo"]}, ["constraints", "cannot read 'foo'", "baseline - 0.01"]),
    ({"constraints": ["size <= 0"]}, ["can never hold"]),
    ({"constraints": ["size <= 100 kB", "size >= 200 kB"]}, ["both >= 200000 and <= 100000"]),
    ({"model": {"call": "nocolon"}, "task": "a.b:c"}, ["model.call"]),
    ({"model": "a.b:c"}, ["model and task go together"]),
    ({"workload": "digits", "model": "a:b", "task": "a:c"}, ["either workload, or model and task"]),
    (
        {"workload": {"nam": "digits"}},
        ["workload.name", "workload.nam: unknown key", "did you mean 'name'"],
    ),
    ({"target": {"threads": 0}}, ["target.threads", "greater than or equal to 1", "got 0"]),
    ({"limits": {"trial_memory": "lots"}}, ["limits.trial_memory", "'2 GiB'"]),
    ({"savings": {"scren": False}}, ["savings.scren: unknown key", "did you mean 'screen'"]),
    ({"seed": "x"}, ["seed", "integer"]),
    ({"budget": [1]}, ["budget: a time or a mapping with any of confirm, generations, goal, "]),
    ({"budget": "soon"}, ["budget.time: cannot read 'soon' as a duration"]),
    ({"budget": None}, ["budget: a time or a mapping", "(got nothing)"]),
    ({"target": 5}, ["target: a runtime or a mapping with any of batch, device, options, "]),
    ({"space": "all"}, ["space: a mapping with any of initial, max_length, "]),
    ({"objectives": 3}, ["objectives: a list is wanted (got 3)"]),
    ({"device": 3}, ["device: a text is wanted (got 3)"]),
    ({"search": 3}, ["search: a mapping of names to values is wanted (got 3)"]),
]


@pytest.mark.parametrize(("data", "words"), FAULTS, ids=[str(d) for d, _ in FAULTS])
def test_faults_are_refused_with_path_and_remedy(data: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    for word in words:
        assert word in str(caught.value)
    for ours in ("Config", "Target", "instance", "dictionary", "Mapping"):
        assert ours not in str(caught.value)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"sed": 1, "objektives": [], "budget": {"time": "x"}})
    assert all(word in str(caught.value) for word in ("sed", "objektives", "budget.time"))


def test_short_forms_mean_the_long_ones() -> None:
    short = parse_config(
        {
            "workload": "digits",
            "search": "uniform",
            "budget": {"time": "2 min", "goal": "size<=1 kB"},
        }
    )
    long = parse_config(
        {
            "workload": {"name": "digits", "args": {}},
            "search": {"name": "uniform"},
            "budget": {"time": 120, "goal": ["size<=1 kB"]},
        }
    )
    assert short == long


@pytest.mark.parametrize("time", ["1 min", 60, 60.0])
def test_a_time_alone_is_a_budget_and_a_name_a_target(tmp_path: Path, time: object) -> None:
    path = tmp_path / "study.yaml"
    for runtime in ("onnxruntime", "openvino", "torch"):
        path.write_text(f"workload: digits\nbudget: {time}\ntarget: {runtime}\n")
        found = load_config(path)
        assert (found.budget.time, found.target.runtime) == (60.0, runtime)
        assert parse_config({"workload": "digits", "budget": time, "target": runtime}) == found
        more = load_config(path, {"budget": {"trials": 5}})
        assert (more.budget.time, more.budget.trials) == (60.0, 5), "what it says stays"


def test_a_dump_reads_back_as_the_same_configuration() -> None:
    config = parse_config(
        {
            "workload": "digits",
            "constraints": ["size <= 0.5 * baseline"],
            "space": {"stages": ["tune"]},
        }
    )
    assert parse_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90 s", 90), ("1.5 min", 90), ("2h", 7200), ("2 hours", 7200), (7, 7)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("300 kB", 300_000), ("2 GiB", 2 << 30), ("12", 12), (5, 5)]
)
def test_sizes(text: object, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- 1\n- 2", "got a list"),
        ("", "study.yaml: is empty"),
        ("# to be written", "study.yaml: is empty"),
        ("a: [1", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_files_that_are_not_a_study(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize("odd", [None, {"a": 1}, [1], "many", -1, 2.5])
def test_an_odd_stagnation_of_an_old_file_is_refused_in_words(odd: object) -> None:
    given = {"workload": "digits", "search": {"name": "evolution", "stagnation": odd}}
    if odd is None:
        assert parse_config(given).budget.stagnation is None
        return
    with pytest.raises(ConfigError, match="stagnation"):
        parse_config(given)
