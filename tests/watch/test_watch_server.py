"""The page's server by real requests: whom it answers, and what it has."""

from __future__ import annotations

import re
import socket
from importlib import resources
from pathlib import Path

import pytest
from served import ask

from petra.core.errors import ConfigError
from petra.watch.server import Server

ASSETS = resources.files("petra.watch") / "assets"


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
