"""Every domain: reference workloads, searched with the default space and searcher for a given time.

    python benchmarks/domains.py                         # all of them, 20 minutes each
    python benchmarks/domains.py --only ucr/GunPoint     # one

Each has a study of its own under ``runs/domains``; a finished one is not run again, one that was
cut off goes on. After each, ``results/domains.json`` gets its rows and ``results/domains.md`` is
written anew from all that are there. PETRA_DATA names the data; missing baselines are trained.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from domains_rows import CONSERVATIVE, DEFAULT, UNQUANTIZED, Rows, row_of
from domains_tables import markdown
from host import heading

from petra.cli.budget import is_finished
from petra.core.quantities import parse_duration
from petra.core.whole import write_whole
from petra.methods.table import STAGES
from petra.report.record import StudyRecord
from petra.store.store import Store
from petra.workloads.places import missing
from petra.workloads.table import WORKLOADS
from petra.workloads.workload import Workload

RESULTS = Path(__file__).parent / "results"
TIME = "20 min"

NAMES = (
    *("ucr/GunPoint", "ucr/ItalyPowerDemand", "ucr/SyntheticControl", "ucr/ECG5000"),
    *("ucr/FaceAll", "ucr/Wafer", "ucr/Crop", "ucr/ElectricDevices"),
    *("tser/Covid3Month", "tser/Tecator", "tser/AppliancesEnergy", "tser/FloodModeling1"),
    *("tser/BeijingPM25", "etth1", "credit", "berka", "bpi2012"),
    *("cifar10", "cifar10/resnet56", "glue/rte", "glue/mrpc", "glue/cola", "glue/stsb"),
    *("glue/sst2", "ucr/ECG5000/lstm_fcn", "ucr/FaceAll/lstm_fcn", "ucr/Wafer/lstm_fcn"),
)
"""Those that are run unless others are asked for, the quickest of each kind first."""


@dataclass(frozen=True)
class Run:
    """A workload, and the space in which it is searched."""

    workload: str
    variant: str

    @property
    def slug(self) -> str:
        words = (self.workload, *(() if self.variant == DEFAULT else (self.variant,)))
        return "-".join(words).replace("/", "-").replace(" ", "-")

    def study(self, time: str, place: Path) -> dict[str, Any]:
        """The study file, in which all is left at its default but for time, place and variant."""
        space = {
            DEFAULT: {},
            CONSERVATIVE: {"preset": "conservative"},
            UNQUANTIZED: {"stages": [s for s in STAGES.names() if not s.startswith("quantize.")]},
        }[self.variant]
        study: dict[str, Any] = {"workload": self.workload, "budget": {"time": time}}
        return {**study, **({"space": space} if space else {}), "workdir": str(place / self.slug)}


def planned(names: tuple[str, ...], variants: tuple[str, ...]) -> Iterator[Run]:
    """All runs: the conservative preset where the quality is an error, quantization left out where
    images are classified.
    """
    for name in names:
        workload = WORKLOADS.get(name)
        fits = {
            DEFAULT: True,
            CONSERVATIVE: not workload.maximize,
            UNQUANTIZED: name.startswith("cifar10"),
        }
        yield from (Run(name, variant) for variant in variants if fits[variant])


def finished(directory: Path, time: str) -> bool:
    """Whether the study there has ended, and had as much time."""
    if not Store.exists(directory):
        return False
    record = StudyRecord.load(directory)
    return is_finished(record) and (record.config.budget.time or 0.0) >= parse_duration(time)


def search(run: Run, time: str, place: Path) -> int:
    """Run or continue the study in a process of its own; its exit code."""
    place.mkdir(parents=True, exist_ok=True)
    file = place / f"{run.slug}.yaml"
    file.write_text(yaml.safe_dump(run.study(time, place.resolve()), sort_keys=False))
    command = [sys.executable, "-m", "petra.cli.main", "run", str(file)]
    print(f"--- {run.workload}, {run.variant}: {' '.join(command)}", flush=True)
    return subprocess.run(command, check=False).returncode


def write(rows: Rows, time: str) -> None:
    command = "python benchmarks/domains.py"
    head = heading("Every domain: reference workloads", command)
    text = markdown(rows.sorted(), head, time)
    write_whole(RESULTS / "domains.md", text)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=NAMES, metavar="NAME", help="petra workloads")
    parser.add_argument(
        "--variants",
        nargs="*",
        default=(DEFAULT, CONSERVATIVE, UNQUANTIZED),
        choices=(DEFAULT, CONSERVATIVE, UNQUANTIZED),
    )
    parser.add_argument("--time", default=TIME, help="of each search")
    parser.add_argument("--place", type=Path, default=Path("runs/domains"), help="of the studies")
    parser.add_argument(
        "--table", action="store_true", help="search nothing: rows of what is finished, and table"
    )
    return parser.parse_args()


def main() -> None:
    given = options()
    RESULTS.mkdir(exist_ok=True)
    rows = Rows(RESULTS / "domains.json")
    failed: Mapping[str, str] = {}
    for run in planned(tuple(given.only), tuple(given.variants)):
        workload: Workload = WORKLOADS.get(run.workload)
        directory = given.place / run.slug
        why = ""
        if not finished(directory, given.time) and not given.table:
            if absent := missing(workload.files):
                why = f"data missing: {', '.join(absent)}"
            elif code := search(run, given.time, given.place):
                why = f"petra run ended with {code}"
        if not why and finished(directory, given.time):
            row = row_of(StudyRecord.load(directory), workload, run.variant)
            if row is None:
                why = "the untouched model was not measured on the test split"
            else:
                rows.put(row)
                write(rows, given.time)
        elif not why and not given.table:
            why = "the study ended before its time"
        if why:
            failed = {**failed, run.slug: why}
    write(rows, given.time)
    print((RESULTS / "domains.md").read_text())
    for slug, why in failed.items():
        print(f"not run: {slug}: {why}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
