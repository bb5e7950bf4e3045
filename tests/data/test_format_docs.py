"""The snippets of docs/data-formats.md, run as they stand on files of the names that they use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import petra
from petra.core.trial import TrialStatus
from petra.intake import examine
from petra.tasks.base import Task

DOCUMENT = Path(__file__).parents[2] / "docs" / "data-formats.md"
N = 60
MOST_LINES = 25


def snippets() -> dict[str, str]:
    """The Python of every section by its title."""
    found = {}
    for section in re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        code = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        if code:
            found[title.replace("`", "")] = "".join(code)
    return found


def machines(folder: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["state," + ",".join(f"t{i}" for i in range(24))]
    for i in range(N):
        row = [f"{v:.3f}" for v in 20 + (i % 3) * np.sin(np.arange(24)) + random.normal(size=24)]
        row[i % 24] = ""
        lines.append(",".join([["idle", "runs", "stuck"][i % 3], *row]))
    (folder / "machines.csv").write_text("\n".join(lines))


def flowers(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    for i in range(N):
        kind, height, width = ["daisy", "rose"][i % 2], *random.integers(20, 50, 2)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        place = folder / "flowers" / kind
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(place / f"{i}.{['png', 'jpg'][i % 4 // 2]}")


def transactions(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    random = np.random.default_rng(0)
    rows = [
        {
            "card": f"c{card}",
            "when": pd.Timestamp("2024-05-31") + pd.Timedelta(hours=float(random.exponential(9))),
            "kind": str(random.choice(["shop", "cash", "web"])),
            "amount": float(random.lognormal(3)),
            "fraud": "yes" if card % 4 == 0 else "no",
        }
        for card in range(N)
        for _ in range(int(random.integers(3, 12)))
    ]
    pd.DataFrame(rows).to_parquet(folder / "transactions.parquet")


def waves(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    from saved import save_to_disk

    random = np.random.default_rng(0)
    columns = {
        "values": random.normal(size=(N, 30)).tolist(),
        "height": random.random(N).tolist(),
        "buoy": [i // 5 for i in range(N)],
    }
    buoys = {"names": [f"b{i}" for i in range(N // 5)], "_type": "ClassLabel"}
    save_to_disk(folder / "waves", columns, buoy=buoys)


def sensors(folder: Path) -> None:
    random = np.random.default_rng(0)
    readings = random.normal(5, 2, (N, 8)).astype(np.float32)
    place = readings.sum(1) + random.normal(size=N).astype(np.float32)
    np.savez(folder / "sensors.npz", readings=readings, place=place)


FILES = {
    "A CSV of series": machines,
    "A folder of images": flowers,
    "A parquet file of transactions": transactions,
    "A datasets folder": waves,
    "Two outputs, with a loss and a score of one's own": sensors,
}


def run(title: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Task]:
    """The model and the task that a snippet makes."""
    FILES[title](folder)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippets()[title], title, "exec"), names)  # noqa: S102 - ours
    return names["model"], names["task"]


def test_every_snippet_is_run_and_short() -> None:
    assert set(snippets()) == set(FILES)
    for code in snippets().values():
        assert len([line for line in code.splitlines() if line.strip()]) < MOST_LINES


@pytest.mark.parametrize("title", FILES)
def test_a_snippet_makes_what_petra_takes(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = run(title, tmp_path, monkeypatch)
    examine(model.eval(), task)
    assert sum(len(split) for _, split in task.splits()) == N
    examined = [spec.dtype for spec in examine(model, task).interface.inputs]
    assert ("uint8" in examined) == ("images" in title)


@pytest.mark.slow
@pytest.mark.parametrize("title", FILES)
def test_a_snippet_s_model_is_compressed(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = run(title, tmp_path, monkeypatch)
    initial = [["quantize.static"], ["tune"], ["quantize.dynamic"]]
    study = petra.compress(
        model,
        task,
        budget={"trials": 3},
        space={"initial": initial, "recipes": False},
        workdir=tmp_path / "study",
    )
    assert study.trials[0].status == TrialStatus.COMPLETE
    assert any(t.status == TrialStatus.COMPLETE for t in study.trials[1:])
