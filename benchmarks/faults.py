"""Every campaign of attacks, one after the other: ``make faults``, under half an hour.

Writes ``results/faults.md`` and exits with 1 when a promise was broken. The campaigns live in
``tests/faults``, where the tests run each of them for seconds.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from host import heading

HERE = Path(__file__).parent
CAMPAIGNS = HERE.parent / "tests" / "faults"
# Seconds for each at most.
BUDGETS = {
    "kills": 420,
    "poison": 720,
    "files": 90,
    "model_files": 60,
    "archives": 100,
    "fuzz": 300,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of each campaign's time")
    given = parser.parse_args()
    sys.path.insert(0, str(CAMPAIGNS))
    lines = ["| campaign | attack | tried | outcomes | broken promises |", "|---|---|---|---|---|"]
    broken: list[str] = []
    started = time.monotonic()
    for name in given.only:
        rows, faults = _run(name, given.seed, BUDGETS[name] * given.share)
        lines += rows
        broken += faults
    minutes = (time.monotonic() - started) / 60
    seconds = f"{minutes:.0f} minutes; seed {given.seed}"
    lines = [*heading("Attacks", "make faults"), f"- {seconds}", "", *lines, "", *_faults(broken)]
    print("\n".join(lines))
    if given.only == list(BUDGETS) and given.share == 1:
        (HERE / "results" / "faults.md").write_text("\n".join(lines) + "\n")
    sys.exit(1 if broken else 0)


def _run(name: str, seed: int, seconds: float) -> tuple[list[str], list[str]]:
    """Rows of the table, one a kind of attack, and the faults found."""
    campaign = importlib.import_module(name).campaign
    outcomes: dict[str, Counter[str]] = {}
    faults: list[str] = []
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="petra-faults-") as scratch:
        for attack in campaign(Path(scratch), seed=seed, seconds=seconds):
            outcomes.setdefault(attack.kind, Counter())[attack.outcome] += 1
            if attack.fault:
                counts[attack.kind] += 1
                faults.append(f"{name}, {attack.kind}: {attack.fault}")
                print(f"BROKEN {faults[-1]}", file=sys.stderr, flush=True)
    rows = [
        f"| {name} | {kind} | {sum(found.values())} | "
        + ", ".join(f"{outcome} {n}" for outcome, n in found.most_common())
        + f" | {counts[kind]} |"
        for kind, found in outcomes.items()
    ]
    return rows, faults


def _faults(broken: Sequence[str]) -> list[str]:
    return ["## Broken promises", "", *(f"- {line}" for line in broken or ["none"])]


if __name__ == "__main__":
    main()
