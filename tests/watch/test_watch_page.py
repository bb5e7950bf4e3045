"""What the page is told of a study that grows, is killed, deleted, new, or hostile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grown import HOSTILE, add, hostile_study, propose, smaller
from served import ask, data, serving

from petra.store.store import Store
from petra.testing.recorded import RecordedExecutor
from petra.testing.studies import toy_study
from petra.watch.server import Server


def test_the_study_is_said_in_figures(server: Server) -> None:
    now, study = data(server, "/now"), data(server, "/study")
    assert now["version"] == study["version"]
    assert now["state"] == "finished"
    assert now["title"] == "digits"
    columns, rows = study["front"]["columns"], study["front"]["rows"]
    assert columns[0] == "trial"
    assert rows[0][0] == "0"
    assert all(len(row) == len(columns) for row in rows)
    assert len(study["plots"]) == 3
    for plot in study["plots"]:
        kinds = {point[3] for point in plot["points"]}
        assert {"front", "untouched"} <= kinds <= {"front", "untouched", "dominated", "infeasible"}
        for name in ("x", "y"):
            axis = plot[name]
            assert all(axis["low"] <= at <= axis["high"] for at, _ in axis["ticks"])
            assert 2 <= len(axis["ticks"]) <= 8
    bounds = [b for plot in study["plots"] for b in plot["bounds"]]
    assert {b["text"] for b in bounds} == {"size_bytes <= 500000"}
    volumes = [volume for *_, volume in study["growth"]]
    assert volumes == sorted(volumes, reverse=True)
    assert len(study["latest"]) == 20


def test_two_viewers_see_a_study_grow(tmp_path: Path) -> None:
    toy_study(tmp_path, trials=5)
    with serving(tmp_path) as server, Store.open(tmp_path, write=True) as store:
        store.set_note("stop_reason", "")

        def view(_: int) -> list[tuple[str, int]]:
            seen = []
            for _ in range(25):
                now, study = data(server, "/now"), data(server, "/study")
                assert now["alive"]
                assert now["state"] == "running"
                seen.append((study["version"], int(study["tiles"][0][0])))
            return seen

        with ThreadPoolExecutor(2) as viewers:
            views = [viewers.submit(view, n) for n in range(2)]
            for i in range(10):
                add(store, metrics=smaller(store, 0.9**i))
            waiting = propose(store)
            found = [v.result() for v in views]
        now, study = data(server, "/now"), data(server, "/study")
        assert [row[0] for row in now["running"]] == [str(waiting.number)]
        assert study["tiles"][0][0] == "15"
        for seen in found:
            counts = [count for _, count in seen]
            assert counts == sorted(counts)
            assert counts[-1] <= 15
        assert len({version for seen in found for version, _ in seen}) > 1


def test_a_deleted_study_is_said_and_a_new_one_shown(tmp_path: Path) -> None:
    place = tmp_path / "study"
    toy_study(place, trials=4)
    with serving(place) as server:
        before = data(server, "/study")
        shutil.rmtree(place)
        now = data(server, "/now")
        assert now["state"] == "unreadable"
        assert "there is no study here" in now["headline"]
        assert data(server, "/study") == before, "the last that was read"
        toy_study(place, trials=6)
        now = data(server, "/now")
        assert now["state"] == "finished"
        assert now["version"] != before["version"]
        assert data(server, "/study")["tiles"][0][0] == "6"


def test_a_study_before_its_first_trial_has_a_page(tmp_path: Path) -> None:
    finished = toy_study(tmp_path / "other", trials=1)
    with Store.open(finished, write=False) as store:
        config, host = store.config, store.host
    with Store.create(tmp_path / "new", config, host), serving(tmp_path / "new") as server:
        now, study = data(server, "/now"), data(server, "/study")
    assert now["state"] == "starting"
    assert study["plots"] == study["volume"] == study["latest"] == []
    assert study["empty"] == "the untouched model has not been measured"


def test_what_a_study_says_travels_as_text(tmp_path: Path) -> None:
    with serving(hostile_study(tmp_path)) as server:
        for path in ("/now", "/study"):
            answer, content = ask(server, path)
            assert answer.headers["Content-Type"] == "application/json"
            assert b"\\u202e" not in content.replace(b"\\\\u202e", b""), "only in escaped form"
        text = json.dumps(data(server, "/study"))
    assert json.dumps(HOSTILE.partition("\u202e")[0])[1:-1] in text


RUN = """
import sys
from pathlib import Path
from petra.testing.recorded import RecordedExecutor
from test_study import study
study(Path(sys.argv[1])).run(executor=lambda given: RecordedExecutor(given, workers=2, delay_s=1.0))
"""


@pytest.mark.slow
def test_a_session_is_followed_killed_and_continued_as_if_nobody_looked(tmp_path: Path) -> None:
    from test_study import study

    place, tests = tmp_path / "watched", Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", RUN, str(place)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}) as process:
        while not Store.exists(place):
            time.sleep(0.1)
        with serving(place) as server:
            counts: list[int] = []
            while not counts or counts[-1] < 8:
                now, known = data(server, "/now"), data(server, "/study")
                assert now["state"] in ("starting", "running")
                assert str(process.pid) in now["who"]
                counts.append(int(known["tiles"][0][0]) if known else 0)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            now = data(server, "/now")
            assert now["state"] == "stopped"
            assert now["headline"] == "not alive: continue with the same call of petra.compress"
            assert now["waiting"] + len(now["running"]) > 0
            assert counts == sorted(counts)
            assert len(set(counts)) > 2
            continued = study(place).run(executor=RecordedExecutor)
            assert data(server, "/now")["state"] == "finished"
    alone = study(tmp_path / "alone").run(executor=RecordedExecutor)
    assert [(t.number, t.pipeline) for t in continued.trials] == [
        (t.number, t.pipeline) for t in alone.trials
    ]
    left = {p.name for p in place.iterdir()} - {p.name for p in (tmp_path / "alone").iterdir()}
    assert left <= {"study.db-wal", "study.db-shm"}


@pytest.mark.parametrize(
    "objectives", [["quality"], ["size"], ["quality", "size", "latency", "macs"]]
)
def test_any_number_of_objectives_is_drawn(tmp_path: Path, objectives: list[str]) -> None:
    toy_study(tmp_path, trials=6, objectives=objectives)
    with serving(tmp_path) as server:
        plots = data(server, "/study")["plots"]
    assert len(plots) == max(1, len(objectives) * (len(objectives) - 1) // 2)
    assert all(plot["points"] for plot in plots)
