"""The page in a real browser: it shows a study, follows it, and runs nothing of it.

Needs a Chromium on this machine and playwright's package for Python, which drives it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from grown import add, hostile_study, propose, smaller
from served import serving

from petra.core.notes import StepBegan
from petra.listener import Silent
from petra.store.activity import told
from petra.store.store import Store
from petra.testing.studies import toy_study

pytestmark = pytest.mark.slow
SIZES = {"wide": (1400, 1000), "narrow": (400, 800)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = os.environ.get("PETRA_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium on this machine (or name it in PETRA_CHROMIUM)")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


class Opened:
    """A page, what it asked for and what it complained of."""

    def __init__(self, context: Any, url: str) -> None:
        self.page = context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("console", lambda m: self.said.append(m.text) if m.type == "error" else None)
        self.page.on("dialog", lambda dialog: (self.said.append("a dialog"), dialog.dismiss()))
        self.page.goto(url)
        self.page.wait_for_selector("#tiles div")


def until(page: Any, holds: str, seconds: float = 30) -> None:
    """Wait for a condition in the page, which its policy forbids to be evaluated there."""
    ends = time.monotonic() + seconds
    while not page.evaluate(holds):
        assert time.monotonic() < ends, holds
        page.wait_for_timeout(50)


@contextmanager
def opened(browser: Any, url: str, size: str = "wide", scheme: str = "light") -> Iterator[Opened]:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    try:
        found = Opened(context, url)
        yield found
        assert found.said == []
        assert {part.split("/")[2] for part in found.asked} <= {url.split("/")[2]}
    finally:
        context.close()


def keep(page: Any, name: str) -> None:
    """A picture to look at, where PETRA_SCREENSHOTS names a folder."""
    if folder := os.environ.get("PETRA_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bounds = ["quality >= baseline - 0.25", "size <= 25 kB"]
    return toy_study(tmp_path_factory.mktemp("study"), trials=60, constraints=bounds)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_everything_is_there_and_fits(browser: Any, study: Path, size: str, scheme: str) -> None:
    with serving(study) as server, opened(browser, server.url, size, scheme) as found:
        page = found.page
        assert page.inner_text("#headline") == "finished: the budget of 60 trials is spent"
        assert page.locator("#plots svg").count() == 3
        assert page.locator("#volume svg").count() == 2
        assert page.locator("#plots .front").count() > 3
        assert page.locator("#members tbody tr").count() > 3
        assert page.locator("#latest tbody tr").count() == 20
        assert page.locator("#endings tbody tr").count() >= 2
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) <= 0, "the page does not scroll sideways, its tables do"
        outside = page.evaluate(
            "[...document.querySelectorAll('figure svg text')].filter(t => {"
            " const b = t.getBoundingClientRect(), s = t.closest('svg').getBoundingClientRect();"
            " return b.left < s.left - 2 || b.right > s.right + 2 }).map(t => t.textContent)"
        )
        assert outside == []
        keep(page, f"watch-{size}-{scheme}")


def test_printed_it_is_dark_on_white_and_whole(browser: Any, study: Path) -> None:
    with serving(study) as server, opened(browser, server.url, "wide", "dark") as found:
        found.page.emulate_media(media="print")
        style = "getComputedStyle(document.body)"
        assert found.page.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)"
        assert found.page.evaluate(f"{style}.color") == "rgb(0, 0, 0)"
        keep(found.page, "watch-print")
        if folder := os.environ.get("PETRA_SCREENSHOTS"):
            found.page.pdf(path=str(Path(folder) / "watch.pdf"))


def test_a_running_study_is_followed_without_a_reload(browser: Any, tmp_path: Path) -> None:
    toy_study(tmp_path, trials=10)
    with (
        serving(tmp_path) as server,
        Store.open(tmp_path, write=True) as store,
        told(tmp_path, Silent(), store.elapsed) as activity,
    ):
        store.set_note("stop_reason", "")
        with opened(browser, server.url) as found:
            page = found.page
            until(page, "document.body.dataset.state === 'running'")
            proposal = propose(store)
            activity.stage(proposal, StepBegan(0, "tune"))
            until(
                page, "document.querySelector('#running').innerText.includes('tune (stage 1 of 1)')"
            )
            keep(page, "watch-running")
            best = add(store, metrics=smaller(store, 0.01))
            until(page, f"document.querySelector('#latest tbody th').innerText === '{best.number}'")
            spoken = page.inner_text("#spoken")
            assert spoken.startswith(f"Trial {best.number}: complete, on the front.")
            assert page.locator("#spoken[aria-live=polite]").count() == 1
            store.close()
            until(page, "document.body.dataset.state === 'stopped'")
            assert "continue with petra resume" in page.inner_text("#headline")
            keep(page, "watch-stopped")


def test_a_page_whose_server_is_gone_says_so(browser: Any, study: Path) -> None:
    with serving(study) as server:
        context = browser.new_context()
        found = Opened(context, server.url)
    until(found.page, "document.body.dataset.state === 'unheard'")
    assert "may be out of date" in found.page.inner_text("#headline")
    assert found.page.locator("#members tbody tr").count() > 3, "what was shown stays"
    context.close()


def test_a_hostile_study_runs_nothing(browser: Any, tmp_path: Path) -> None:
    with serving(hostile_study(tmp_path)) as server, opened(browser, server.url) as found:
        page = found.page
        page.wait_for_selector("#endings tbody tr")
        page.wait_for_timeout(500)
        assert page.evaluate("window.owned") is None
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 1
        for place in ("#endings", "#members", "#headline", "#latest"):
            assert "<script>window.owned=2</script>" in page.inner_text(place), place
        keep(page, "watch-hostile")


def test_the_policy_stops_what_would_be_injected(browser: Any, study: Path) -> None:
    with serving(study) as server:
        context = browser.new_context()
        page = Opened(context, server.url).page
        refused = "(() => { try { document.body.innerHTML = '<p>x'; return false }"
        assert page.evaluate(f"{refused} catch (error) {{ return true }} }})()"), "trusted types"
        handler = refused.replace("body.innerHTML = '<p>x'", "body.setAttribute('onclick', 'x')")
        assert page.evaluate(f"{handler} catch (error) {{ return true }} }})()")
        context.close()


def test_the_keyboard_reaches_every_table(browser: Any, study: Path) -> None:
    with serving(study) as server, opened(browser, server.url, "narrow") as found:
        page, reached = found.page, set()
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.getAttribute('aria-label')"))
        assert {"The front in figures", "The trials that ended last, the newest first"} <= reached
        page.focus("#members .scroll")
        page.keyboard.press("ArrowRight")
        until(page, "document.querySelector('#members .scroll').scrollLeft > 0")
