"""Parameter-efficient fine-tuning of MiniLM on GLUE: searched configurations beside the usual ones.

    python benchmarks/peft.py                             # all tasks, resumable
    python benchmarks/peft.py --tasks rte --trials 40     # one
    python benchmarks/peft.py --table                     # only the table of what is there

For each task a study with the preset `autopeft` (``runs/peft/<task>``), its picks and all of
`petra.recipes.peft.USUAL` trained with each seed on the same items, and what was found on the first
task applied to the others. Searches see the validation split, a part of the training file; what is
reported is from the test split, which is the official development set. ``results/peft.md`` is
written anew after each task. With ``--replay``, searchers are compared on a model of what was
evaluated (`peft_replay`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from host import heading
from peft_problem import TASKS, WIDTH, Rows, Setting
from peft_replay import compare
from peft_tables import BEST, FOUND, SMALL, markdown

from petra.api import study_from_config
from petra.cli.budget import is_finished
from petra.config import parse_config
from petra.core.pipeline import Pipeline
from petra.core.trial import Trial
from petra.front import Front
from petra.recipes.peft import USUAL, usual
from petra.report.record import StudyRecord
from petra.store.store import Store
from petra.workloads.glue import TASKS as GLUE
from petra.workloads.places import missing

RESULTS = Path(__file__).parent / "results"
METRIC = "trainable_params"
ONE_PERCENT = 0.01


def search_of(name: str, trials: int) -> dict[str, Any]:
    """Options of a search of so many trials: as published but for its length, on shares of the data
    first, or with modules first and sizes next.
    """
    half = max(1, trials // 2)
    return {
        "bayes": {"name": "bayes", "initial": half},
        "low-cost": {"name": "asha", "proposals": "bayes", "share_of": "data", "zero_shot": False},
        "structure-first": {"name": "structure_first", "proposals": "bayes", "bits": half},
    }[name]


def study(task: str, setting: Setting, given: argparse.Namespace) -> dict[str, Any]:
    """The study file: the published space at a smaller budget."""
    return {
        "workload": {"name": "glue", "args": setting.args(task)},
        "objectives": ["quality", METRIC],
        "space": {"preset": "autopeft", "stages": {"adapt": setting.training()}},
        "search": search_of(given.search, given.trials),
        "budget": {"trials": given.trials, "stagnation": 0},
        "prior": {"shipped": False},
        "workdir": str(given.place / task),
    }


def searched(task: str, setting: Setting, given: argparse.Namespace) -> Front:
    """The front of the task's study, which is run or continued where it is not finished."""
    directory = given.place / task
    if Store.exists(directory):
        record = StudyRecord.load(directory)
        if is_finished(record) and len(record.trials) > given.trials:
            return record.front()
    print(f"searching {task}: {given.trials} trials", flush=True)
    study_from_config(parse_config(study(task, setting, given), where=task)).run()
    return StudyRecord.load(directory).front()


def picks(front: Front) -> dict[str, Pipeline]:
    """The best on the validation split, and the best of those that train 1% of the parameters."""
    assert front.baseline is not None
    limit = ONE_PERCENT * front.baseline.metrics["params"].mean
    members = [t for t in front.members if t.number]
    small = [t for t in members if t.metrics[METRIC].mean <= limit]

    def best(trials: Iterable[Trial]) -> Trial | None:
        sign = 1 if front.maximize_quality else -1
        return max(trials, key=lambda t: sign * t.metrics["quality"].mean, default=None)

    found = {BEST: best(members), SMALL: best(small)}
    return {name: trial.pipeline for name, trial in found.items() if trial is not None}


def run(task: str, given: argparse.Namespace, setting: Setting, rows: Rows) -> None:
    """All rows of a task; of the first one, what was found there is applied to the others too."""
    for name in USUAL:
        pipeline = usual(name, WIDTH, epochs=setting.epochs, lr=setting.lr, full_lr=setting.full_lr)
        for seed in range(given.seeds):
            rows.make(task, name, pipeline, seed, setting)
    if not given.trials:
        return
    chosen = picks(searched(task, setting, given))
    source = given.tasks[0]
    if task != source:
        elsewhere = picks(searched(source, setting, given))
        chosen |= {FOUND.format(name=name, task=source): p for name, p in elsewhere.items()}
    for name, pipeline in chosen.items():
        for seed in range(given.seeds):
            rows.make(task, name, pipeline, seed, setting)


def write(rows: Rows, given: argparse.Namespace, setting: Setting) -> None:
    RESULTS.mkdir(exist_ok=True)
    head = heading(
        "Parameter-efficient fine-tuning: MiniLM-L6 on GLUE", "python benchmarks/peft.py"
    )
    volumes = given.place / "volumes.json"
    text = markdown(rows, head, setting, tasks=given.tasks, trials=given.trials, volumes=volumes)
    (RESULTS / "peft.md").write_text(text)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3, help="of every row")
    parser.add_argument("--trials", type=int, default=60, help="of each search; 0: no search")
    parser.add_argument(
        "--search", default="bayes", choices=("bayes", "low-cost", "structure-first")
    )
    parser.add_argument("--items", type=int, default=1024, help="training items; 0: all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=1e-3, help="of modules and head")
    parser.add_argument("--full-lr", type=float, default=5e-5, help="of full fine-tuning")
    parser.add_argument("--place", type=Path, default=Path("runs/peft"), help="of studies and rows")
    parser.add_argument("--replay", type=int, default=0, metavar="SEEDS", help="compare searchers")
    parser.add_argument("--table", action="store_true", help="evaluate nothing, write the table")
    return parser.parse_args()


def main() -> None:
    given = options()
    setting = Setting(given.items or None, given.epochs, given.lr, given.full_lr)
    rows = Rows(given.place / "rows.jsonl")
    for task in () if given.table else given.tasks:
        known = GLUE[task]
        files = [f"glue/{known.folder}/{name}.tsv.gz" for name in ("train", known.test)]
        if absent := missing(files):
            print(f"{task}: data missing: {', '.join(absent)}")
            continue
        run(task, given, setting, rows)
        write(rows, given, setting)
    if given.replay:
        compare(given.place / given.tasks[0], given.place / "volumes.json", seeds=given.replay)
    write(rows, given, setting)
    print((RESULTS / "peft.md").read_text())


if __name__ == "__main__":
    main()
