"""Real studies whose processes are killed at random moments: nothing finished is lost, nothing is
done twice.

``python kills.py WORKDIR WORKERS [confirming]`` is the study that is killed; with the last word it
kills itself when the search has ended and its front is about to be confirmed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from attack import Attack
from torch import nn

import petra
from petra.core.errors import PetraError
from petra.core.trial import Trial
from petra.listener import Silent
from petra.report.record import StudyRecord
from petra.store.store import Store
from petra.workers.imports import HOME

VICTIMS = ("everything", "driver", "worker", "call", "measurement", "at the confirmation")
RUNS = 6  # of one study at most, the killed ones included
RUN_LIMIT_S = 240.0
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(
        [str(Path(petra.__file__).parents[1]), str(Path(__file__).parent)]
    ),
    "OMP_NUM_THREADS": "1",
}


class Dying(Silent):
    """Ends the whole process when the confirmations begin."""

    def message(self, text: str) -> None:
        if text.startswith("confirming"):
            os.kill(os.getpid(), signal.SIGKILL)


def study(workdir: Path, workers: int, *, dying: bool = False) -> None:
    """Four candidates whose results are functions of the seed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = torch.randn(120, 8), torch.randint(0, 3, (120,))
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    petra.compress(
        model,
        petra.classification((x[:60], y[:60]), (x[60:90], y[60:90]), (x[90:], y[90:])),
        objectives=("quality", "size"),
        search={"name": "uniform", "generation": 2},
        space={"stages": {"tune": {"epochs": [1, 4]}, "prune.structured": {}}, "max_length": 2},
        budget={"trials": 4},
        limits={"workers": workers, "build_threads": 1},
        workdir=workdir,
        listener=Dying() if dying else None,
    )


@dataclass(frozen=True)
class Ended:
    """What a study's directory says: trials by number, members of the front, whether it is done."""

    trials: dict[int, Trial]
    front: list[int]
    done: bool

    @staticmethod
    def of(workdir: Path) -> Ended:
        record = StudyRecord.load(workdir)
        members = petra.load_study(workdir).front.members
        return Ended(
            {t.number: t for t in record.trials},
            [t.number for t in members],
            bool(record.stop_reason),
        )


def start(workdir: Path, workers: int, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, str(workdir), str(workers), *words]
    with workdir.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True
        )


def victims(driver: psutil.Process) -> dict[str, list[psutil.Process]]:
    """The processes of a running study by what they do."""
    found: dict[str, list[psutil.Process]] = {"worker": [], "call": [], "measurement": []}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in driver.children():
            words = child.cmdline()
            if "petra.workers" not in " ".join(words):
                continue
            if words[-1] == HOME:  # it imports from nowhere else
                found["measurement"].append(child)
            else:
                found["worker"].append(child)
                found["call"] += child.children()
    return found


def kill(process: subprocess.Popen[bytes], victim: str, draw: random.Random) -> bool:
    """Kill what was chosen; whether there was any of it."""
    try:
        driver = psutil.Process(process.pid)
    except psutil.NoSuchProcess:
        return False
    if victim == "driver":
        chosen = [driver]
    elif victim == "everything":
        chosen = [driver, *driver.children(recursive=True)]
    else:
        some = victims(driver)[victim]
        chosen = [draw.choice(some)] if some else []
    for each in chosen:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    return bool(chosen)


def campaign(scratch: Path, *, seed: int, seconds: float) -> Iterator[Attack]:
    """Studies killed once or several times each, until the time is over."""
    until = time.monotonic() + seconds
    draw = random.Random(seed)
    started = time.monotonic()
    if start(scratch / "calm", 1).wait(RUN_LIMIT_S):
        yield Attack("no attack", "a study failed", (scratch / "calm.log").read_text()[-500:])
        return
    length = time.monotonic() - started
    calm = Ended.of(scratch / "calm")
    number = 0
    while time.monotonic() < until:
        victim, workers = VICTIMS[number % len(VICTIMS)], 1 + number // len(VICTIMS) % 2
        number += 1
        yield attack(scratch / f"{number}", victim, workers, calm, length, draw)


def attack(
    workdir: Path, victim: str, workers: int, calm: Ended, length: float, draw: random.Random
) -> Attack:
    """One study, killed at its first run and now and then at others, until it ends by itself."""
    kind = f"{victim}, {workers} worker{'s' if workers > 1 else ''}"
    seen: dict[int, Trial] = {}
    for run in range(RUNS):
        if victim == "at the confirmation":
            process = start(workdir, workers, *(["confirming"] if run == 0 else []))
        else:
            process = start(workdir, workers)
            if run == 0 or draw.random() < 0.3:
                wait(process, draw.uniform(0.0, length))
                until = time.monotonic() + length
                while (
                    not kill(process, victim, draw)
                    and process.poll() is None
                    and time.monotonic() < until
                ):
                    time.sleep(0.02)
        try:
            code = process.wait(RUN_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return Attack(kind, "it hangs", f"run {run} did not end: {workdir}")
        if fault := lost(workdir, seen):
            return Attack(kind, "damaged", fault)
        if code == 0:
            fault = differs(
                Ended.of(workdir),
                calm,
                exact=victim in ("everything", "driver", "at the confirmation"),
            )
            return Attack(kind, "ended as if undisturbed", fault and f"{fault}: {workdir}")
    return Attack(kind, "never ends", workdir.with_suffix(".log").read_text()[-500:])


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def lost(workdir: Path, seen: dict[int, Trial]) -> str:
    """Which finished trial is gone or another than it was; adds the new ones to `seen`."""
    if not Store.exists(workdir):
        return "the study is gone" if seen else ""
    try:
        with Store.open(workdir, write=False) as store:
            now = {trial.number: trial for trial in store.trials()}
    except PetraError as error:
        return f"it cannot be read: {error}"
    for number, trial in seen.items():
        if number not in now or not same(now[number], trial, lambda t: t.finished_at):
            return f"trial {number} was lost or run again"
    seen.update(now)
    return ""


def same(one: Trial, other: Trial, extra: Callable[[Trial], object] = lambda trial: 0) -> bool:
    """Equal in all that is no measurement of time or memory."""

    def facts(trial: Trial) -> object:
        exact = [trial.metrics.get(name) for name in ("quality", "size_bytes", "params", "macs")]
        return trial.pipeline, trial.status, [m and (m.mean, m.n) for m in exact], extra(trial)

    return facts(one) == facts(other)


def differs(ended: Ended, calm: Ended, *, exact: bool) -> str:
    """How a study that was killed differs from one that was not; what killed a candidate alone may
    have failed it.
    """
    if ended.trials.keys() != calm.trials.keys() or not ended.done:
        return f"trials {sorted(ended.trials)}, done: {ended.done}"
    others = [n for n, trial in ended.trials.items() if not same(trial, calm.trials[n])]
    if exact and (others or ended.front != calm.front):
        return f"trials {others} are others; front {ended.front} instead of {calm.front}"
    for number in others:
        failure = ended.trials[number].failure
        if failure is None or not any(
            words in failure.message for words in ("SIGKILL", "measuring process")
        ):
            return f"trial {number} is another: {failure}"
    unconfirmed = [n for n in (0, *ended.front) if not ended.trials[n].test]
    return f"not confirmed: {unconfirmed}" if unconfirmed and exact else ""


if __name__ == "__main__":
    study(Path(sys.argv[1]), int(sys.argv[2]), dying="confirming" in sys.argv)
