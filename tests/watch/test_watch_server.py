"""The page's server by real requests: whom it answers, what it has, what it never says."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from grown import HOSTILE, add, hostile_study, propose, smaller

from petra.core.errors import ConfigError
from petra.store.store import Store
from petra.testing.studies import toy_study
from petra.watch import look as looking
from petra.watch.server import Server

ASSETS = resources.files("petra.watch") / "assets"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LEAST_S", 0.0)
    monkeypatch.setattr(looking, "SHARE", 1.0)


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    with Server(directory, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = toy_study(
        tmp_path_factory.mktemp("study"), trials=25, constraints=["size <= 500 kB"]
    )
    with serving(directory) as running:
        yield running


def ask(
    server: Server, path: str = "/", method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def data(server: Server, path: str) -> Any:
    answer, content = ask(server, path)
    assert answer.status == 200
    return json.loads(content)


# ---- whom it answers -----------------------------------------------------------------------------


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8642", "localhost:9"])
def test_its_own_names_are_answered_under_any_port(server: Server, host: str) -> None:
    assert ask(server, "/now", Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80",
        "",
        "localhost:80:evil",
        "localhost:x",
        "0.0.0.0",
        "[::1]",
        "127.0.0.1@evil",
        "127.1",
    ],
)
@pytest.mark.parametrize("path", ["/", "/now", "/page.js"])
def test_other_names_are_refused_whatever_is_asked(server: Server, host: str, path: str) -> None:
    answer, content = ask(server, path, Host=host)
    assert answer.status == 403
    assert b"{" not in content


def test_no_host_and_two_hosts_are_refused(server: Server) -> None:
    for lines in ("", "Host: localhost\r\nHost: localhost\r\n"):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as plain:
            plain.sendall(f"GET /now HTTP/1.1\r\n{lines}\r\n".encode())
            assert b" 403 " in plain.makefile("rb").readline()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_nothing_but_get(server: Server, method: str) -> None:
    answer, _ = ask(server, "/now", method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_an_unknown_method_is_refused(server: Server) -> None:
    assert ask(server, "/now", "<script>")[0].status in (400, 501)


# ---- what it has ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/now", "application/json"),
        ("/study", "application/json"),
    ],
)
def test_every_answer_is_of_its_kind_and_guarded(server: Server, path: str, kind: str) -> None:
    answer, content = ask(server, path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    assert int(answer.headers["Content-Length"]) == len(content)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/study.db",
        "/../study.db",
        "/page.css/../page.js",
        "/%2e%2e/study.db",
        "//etc/passwd",
        "/page.html",
        "/assets/page.js",
        "/now/",
        "/now?x=1",
        "http://localhost/now",
        "/.",
        "*",
        "/page.js\\..",
        "/" + "a" * 5000,
    ],
)
def test_no_other_path_leads_anywhere(server: Server, path: str) -> None:
    answer, content = ask(server, path)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "Content-Security-Policy" in answer.headers
    assert b"SQLite" not in content
    assert b"root:" not in content


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    for name in ("page.html", "page.css", "page.js"):
        text = (ASSETS / name).read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert len(text.splitlines()) <= 300
        assert "@import" not in text
        assert "url(" not in text


def test_the_script_never_makes_markup_of_text() -> None:
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
        "srcdoc",
        ".href",
        ".src",
        'setTimeout("',
    ):
        assert way not in script
    page = (ASSETS / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|javascript:|<style|\sstyle=", page)


def test_a_port_that_is_taken_is_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--port {server.server_port}: "):
        Server(tmp_path, server.server_port)
    with pytest.raises(ConfigError, match="--port 99999"):
        Server(tmp_path, 99999)


# ---- what it says --------------------------------------------------------------------------------


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
    import shutil

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


@pytest.mark.parametrize(
    "objectives", [["quality"], ["size"], ["quality", "size", "latency", "macs"]]
)
def test_any_number_of_objectives_is_drawn(tmp_path: Path, objectives: list[str]) -> None:
    toy_study(tmp_path, trials=6, objectives=objectives)
    with serving(tmp_path) as server:
        plots = data(server, "/study")["plots"]
    assert len(plots) == max(1, len(objectives) * (len(objectives) - 1) // 2)
    assert all(plot["points"] for plot in plots)
