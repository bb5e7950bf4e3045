"""The loop: same proposals for any number of workers, stored before they run; budgets; a study that
was cut off goes on as if nothing had happened.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from petra.core.errors import StoreError
from petra.core.trial import Proposal, Trial
from petra.search.uniform import UniformSearcher
from petra.store.store import Store
from petra.testing.recorded import RecordedExecutor
from test_study import study


def proposals(trials: list[Trial]) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(t.number, t.pipeline.canonical(), t.origin.moves) for t in trials]


@pytest.mark.parametrize("workers", [2, 8])
def test_proposals_do_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int) -> None:
    alone = study(tmp_path / "1").run(executor=lambda _: RecordedExecutor(delay_s=0.005))
    many = study(tmp_path / "n").run(
        executor=lambda _: RecordedExecutor(workers=workers, delay_s=0.02)
    )
    assert len(alone.trials) == 21
    assert proposals(alone.trials) == proposals(many.trials)


def test_another_seed_proposes_otherwise(tmp_path: Path) -> None:
    one, two = (study(tmp_path / str(s), seed=s).run(executor=RecordedExecutor) for s in (1, 2))
    assert proposals(one.trials) != proposals(two.trials)


def test_a_larger_budget_continues_and_runs_nothing_again(tmp_path: Path) -> None:
    whole = study(tmp_path / "whole").run(executor=RecordedExecutor)
    study(tmp_path / "parts", budget={"trials": 7}).run(executor=RecordedExecutor)
    executor = RecordedExecutor()
    rest = study(tmp_path / "parts").run(executor=lambda _: executor)
    assert proposals(rest.trials) == proposals(whole.trials)
    assert sorted(executor.evaluated) == list(range(8, 21))


def test_fidelities_are_stored_and_continued(tmp_path: Path) -> None:
    """A search by rungs that was cut off proposes the same, at the same fidelities."""
    rungs = {"name": "asha", "proposals": "uniform"}
    whole = study(tmp_path / "whole", search=rungs).run(executor=RecordedExecutor)
    study(tmp_path / "parts", search=rungs, budget={"trials": 11}).run(executor=RecordedExecutor)
    rest = study(tmp_path / "parts", search=rungs).run(executor=RecordedExecutor)
    assert proposals(rest.trials) == proposals(whole.trials)
    assert [t.fidelity for t in rest.trials] == [t.fidelity for t in whole.trials]
    assert len({t.fidelity for t in whole.trials}) > 2
    assert all(t.fidelity.full for t in whole.front.members)


def test_generations_are_so_many_times_the_trials_that_run_at_once(tmp_path: Path) -> None:
    done = study(tmp_path, budget={"generations": 3}).run(executor=RecordedExecutor)
    assert len(done.trials) == 1 + 3 * 4
    with Store.open(tmp_path, write=False) as store:
        assert store.note("stop_reason") == "the budget of 3 generations is spent"


class Interrupted(RecordedExecutor):
    """Ctrl-C after so many trials."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def results(self) -> Iterator[Trial]:
        for trial in super().results():
            yield trial
            self.after -= 1
            if not self.after:
                raise KeyboardInterrupt


def test_a_proposal_is_stored_before_it_runs_and_runs_first_when_resumed(tmp_path: Path) -> None:
    whole = study(tmp_path / "whole").run(executor=RecordedExecutor)
    place = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        study(place).run(executor=lambda _: Interrupted(6))
    with Store.open(place, write=False) as store:
        made, done = store.proposals(), store.trials()
    waiting = [p.number for p in made if p.number not in {t.number for t in done}]
    assert 0 < len(waiting) <= 4
    executor = RecordedExecutor()
    rest = study(place).run(executor=lambda _: executor)
    assert set(executor.evaluated[: len(waiting)]) <= {*waiting, *range(len(made), len(made) + 4)}
    assert proposals(rest.trials) == proposals(whole.trials)
    with Store.open(place, write=False) as store, Store.open(tmp_path / "whole", write=False) as w:
        assert store.proposals() == w.proposals()


def test_a_searcher_that_would_propose_otherwise_now_goes_on_from_what_it_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with another version of petra, or a model whose last bits are others on this machine."""
    search = {"name": "uniform", "generation": 4}
    few = study(tmp_path, search=search, budget={"trials": 9}).run(executor=RecordedExecutor)
    before = proposals(few.trials)
    monkeypatch.setattr(UniformSearcher, "stream", "another")
    after = study(tmp_path, search=search).run(executor=RecordedExecutor)
    assert proposals(after.trials[:10]) == before
    other = study(tmp_path / "new", search=search).run(executor=RecordedExecutor)
    assert proposals(after.trials[10:]) == proposals(other.trials[10:])


class Longer(RecordedExecutor):
    """Any candidate takes longer than the whole study has."""

    def _result(self, proposal: Proposal) -> Trial:
        time.sleep(2.1 if proposal.number else 0.0)
        return super()._result(proposal)


def test_what_began_in_time_ends_and_the_rest_waits(tmp_path: Path) -> None:
    study(tmp_path, budget={"time": 2.0}).run(executor=lambda _: Longer())
    with Store.open(tmp_path, write=False) as store:
        made, done = store.proposals(), store.trials()
        assert store.note("stop_reason") == "the time budget of 2 s is spent"
    assert len(made) == 1 + 4
    assert len(done) == 1 + 1
    rest = study(tmp_path, budget={"trials": len(made) - 1}).run(executor=RecordedExecutor)
    assert [t.number for t in rest.trials] == [p.number for p in made]


def test_a_goal_stops_the_search(tmp_path: Path) -> None:
    budget = {"trials": 200, "goal": "size <= 0.5 * baseline"}
    trials = study(tmp_path, budget=budget).run(executor=RecordedExecutor).trials
    assert len(trials) < 200
    sizes = [t.metrics["size_bytes"].mean for t in trials if t.measured]
    assert min(sizes) <= 0.5 * sizes[0]
    again = RecordedExecutor()
    assert len(study(tmp_path, budget=budget).run(executor=lambda _: again).trials) == len(trials)
    assert again.evaluated == []


def test_only_the_front_sees_the_test_split_and_only_once(tmp_path: Path) -> None:
    done = study(tmp_path, budget={"trials": 12}).run(executor=RecordedExecutor)
    tested = {t.number for t in done.trials if t.test}
    assert tested == {0} | {t.number for t in done.front.members}
    again = RecordedExecutor()
    study(tmp_path, budget={"trials": 12}).run(executor=lambda _: again)
    assert again.evaluated == []


KILLED_RUN = """
import sys, pathlib
sys.path.insert(0, {tests!r})
from test_study import study
from petra.testing.recorded import RecordedExecutor
recorded = lambda _: RecordedExecutor(workers=2, delay_s=0.05)
study(pathlib.Path({workdir!r}), budget={{"trials": 200}}).run(executor=recorded)
"""


def kill_repeatedly(workdir: Path, times: int) -> int:
    """Start the study in a process of its own, kill -9 it at a random moment, check the store;
    again.
    """
    seen: dict[int, str] = {}
    landed = 0
    draw = random.Random(7)
    code = KILLED_RUN.format(tests=str(Path(__file__).parent), workdir=str(workdir))
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not Store.exists(workdir) and time.monotonic() < deadline:
            time.sleep(0.05)
        target = len(seen) + draw.randint(0, 9)
        while process.poll() is None and time.monotonic() < deadline and stored(workdir) < target:
            time.sleep(draw.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        landed += process.wait() == -signal.SIGKILL
        assert process.stderr is not None
        process.stderr.close()
        with Store.open(workdir, write=False) as store:
            now = {t.number: t.pipeline.canonical() for t in store.trials()}
        assert seen.items() <= now.items(), "a finished trial was lost or changed"
        seen = now
    return landed


def stored(workdir: Path) -> int:
    try:
        with Store.open(workdir, write=False) as store:
            return len(store.trials())
    except StoreError:
        return 0  # being created at this very moment


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_loses_nothing_and_resume_proposes_the_same(tmp_path: Path, times: int) -> None:
    undisturbed = study(tmp_path / "calm", budget={"trials": 200}).run(executor=RecordedExecutor)
    landed = kill_repeatedly(tmp_path / "killed", times)
    assert landed >= times - 1
    survivor = study(tmp_path / "killed", budget={"trials": 200}).run(executor=RecordedExecutor)
    assert proposals(survivor.trials) == proposals(undisturbed.trials)
    assert len({t.pipeline.key for t in survivor.trials}) == len(survivor.trials) == 201
