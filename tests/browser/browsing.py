"""Pages in a real browser without a window: what they ask for, what axe-core finds, how they look.

Needs the Python package playwright and a Chromium: the one that ``PETRA_CHROMIUM`` names, that of
the system, or playwright's own. axe-core is the file that ``PETRA_AXE`` names, or is fetched with
``npm pack``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Scheme = Literal["light", "dark"]
SERIOUS = ("serious", "critical")
LOCAL = ("", "localhost", "127.0.0.1", "::1")


@dataclass
class Visit:
    """A page that is open, every address it has asked for, and what it said went wrong."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def abroad(self) -> list[str]:
        """Requests to another machine."""
        return [r for r in self.requests if (urlsplit(r).hostname or "") not in LOCAL]

    def violations(self) -> list[str]:
        """Serious ones that axe-core finds in the page as it stands, a line for each element."""
        self.page.evaluate(axe_source())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']} ({one['impact']}): {' '.join(map(str, node['target']))}:"
            f" {' '.join(node['failureSummary'].split())}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(width))


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("PETRA_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(
    browser: Browser, address: str, *, width: int = 1400, scheme: Scheme = "light"
) -> Iterator[Visit]:
    """The page at a URL, or in a file, in a window of that width."""
    url = address if "://" in address else Path(address).resolve().as_uri()
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    found = Visit(context.new_page())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on(
        "console", lambda said: found.errors.append(said.text) if said.type == "error" else None
    )
    try:
        found.page.goto(url, wait_until="load")
        yield found
    finally:
        context.close()


@cache
def axe_source() -> str:
    """The text of axe-core."""
    if given := os.environ.get("PETRA_AXE"):
        return Path(given).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as place:
        command = ["npm", "pack", "--silent", "axe-core@4", "--pack-destination", place]
        subprocess.run(command, check=True, capture_output=True)
        (archive,) = Path(place).glob("*.tgz")
        with tarfile.open(archive) as packed:
            member = packed.extractfile("package/axe.min.js")
            assert member is not None
            return member.read().decode("utf-8")
