"""One page about one study, for browsers on this machine.

What is served is a fixed table of names: three files of petra's own and two JSON documents. No path
of a request reaches the file system. Requests are answered only under the names that this machine
has for itself, so that no page from elsewhere can read a study by pointing a name of its own here
(DNS rebinding), and a strict Content-Security-Policy keeps whatever a study says from running.
"""

from __future__ import annotations

import json
import secrets
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

from petra.core.errors import ConfigError, PetraError
from petra.watch.data import now_data, study_data
from petra.watch.look import Look, Watched

ADDRESS = "127.0.0.1"
PORT = 8642
HOSTS = (ADDRESS, "localhost")  # under any port: a tunnel has its own
_ASSETS = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_JSON = "application/json"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Pages:
    """What is served about a study; each version of it is made into JSON once."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._lock = threading.Lock()
        self._made: tuple[int, bytes, str] = (0, b"{}", "")  # version, JSON, why there is none
        self._mark = secrets.token_hex(4)  # versions of another server are others
        place = resources.files("petra.watch") / "assets"
        self._assets = {
            path: ((place / name).read_bytes(), kind) for path, (name, kind) in _ASSETS.items()
        }

    def get(self, path: str) -> tuple[bytes, str] | None:
        """Content and its type; None for what is not in the table."""
        if path == "/now":
            look = self._watched.look()
            return _json(now_data(look, self._study(look)[1]) | self._version(look)), _JSON
        if path == "/study":
            return self._study(self._watched.look())[0], _JSON
        return self._assets.get(path)

    def _version(self, look: Look) -> dict[str, str]:
        return {"version": f"{self._mark}-{look.seen.version}" if look.seen else ""}

    def _study(self, look: Look) -> tuple[bytes, str]:
        """The study as JSON, `{}` where it cannot be shown, and why."""
        with self._lock:
            if look.seen and look.seen.version != self._made[0]:
                began = time.monotonic()
                try:
                    made, trouble = _json(study_data(look.seen) | self._version(look)), ""
                except PetraError as error:
                    made, trouble = b"{}", error.message
                self._made = (look.seen.version, made, trouble)
                self._watched.spent(time.monotonic() - began)
            return self._made[1:]


def _json(data: Mapping[str, object]) -> bytes:
    return json.dumps(data, allow_nan=False).encode()


class Server(ThreadingHTTPServer):
    """Serves the study in `directory` on this machine alone; port 0 is any that is free.

    Raises ConfigError when the port is taken.
    """

    daemon_threads = True

    def __init__(self, directory: Path, port: int = PORT) -> None:
        self.pages = Pages(Watched(directory))
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "there is no such port"
            raise ConfigError(
                f"--port {port}: {reason}", hint="give another, or 0 for any that is free"
            ) from error

    def server_bind(self) -> None:
        # Not HTTPServer's own, which asks the network for the machine's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, int(self.socket.getsockname()[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # the browser has gone
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "petra", ""
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"
    timeout = 10  # seconds for a request to arrive

    def do_GET(self) -> None:
        if not self._from_here():
            self.send_error(403, "this page is for this machine: open it as localhost")
            return
        try:
            found = self.server.pages.get(self.path)
        except Exception:
            self.send_error(500, "see the terminal of petra watch")
            raise
        if found is None:
            self.send_error(404, "there is no such page")
            return
        content, kind = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self) -> None:
        self.send_error(405, "nothing can be changed here")

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _from_here(self) -> bool:
        """Whether the request names this machine as its one Host."""
        hosts = self.headers.get_all("Host") or []
        name, _, port = (hosts[0] if len(hosts) == 1 else "").strip().lower().partition(":")
        return name in HOSTS and (not port or port.isdecimal())

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if self._is_refusal:
            self.send_header("Allow", "GET")
        super().end_headers()

    def send_response(self, code: int, message: str | None = None) -> None:
        self._is_refusal = code == 405
        super().send_response(code, message)

    def log_message(self, format: str, *args: object) -> None:
        """The terminal is for what goes wrong in petra."""
