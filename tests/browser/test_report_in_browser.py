"""The report as people use it: with a mouse, with a keyboard, on a phone, in the dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import Scheme, Visit, chromium, visit
from screenshots import faults

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Origin, Trial, TrialStatus
from petra.report.html import write_report
from petra.report.study_front import StudyFront
from petra.store.store import Store
from petra.testing.studies import toy_study

pytest.importorskip("playwright")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
TRIALS = 130


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bounds = ("quality >= baseline - 0.2", "latency <= 0.9")
    return toy_study(tmp_path_factory.mktemp("study"), trials=TRIALS, constraints=bounds)


@pytest.fixture(scope="module")
def report(study: Path) -> str:
    return str(write_report(study))


@pytest.fixture
def seen(browser: Browser, report: str) -> Iterator[Visit]:
    with visit(browser, report) as opened:
        yield opened
        assert opened.errors == []
        assert opened.abroad == []


def numbers(seen: Visit) -> list[int]:
    """Of the trials in the table, in the order in which they are shown."""
    return [int(text) for text in seen.page.locator("#trials tbody th").all_inner_texts()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_no_serious_fault_at_any_width_in_any_light(
    browser: Browser, report: str, width: int, scheme: Scheme
) -> None:
    with visit(browser, report, width=width, scheme=scheme) as opened:
        assert faults(opened) == []
        opened.page.evaluate("location.hash = '#trial-1'")
        opened.page.wait_for_selector("dialog[open]")
        assert faults(opened) == []


def test_rows_are_rendered_as_they_are_asked_for(seen: Visit) -> None:
    assert numbers(seen) == list(range(100))
    seen.page.get_by_role("button", name="Show 31 more").click()
    assert numbers(seen) == list(range(TRIALS + 1))
    assert not seen.page.locator("button.more").is_visible()


def test_the_table_is_sorted_by_any_column_both_ways(seen: Visit, study: Path) -> None:
    sizes = {
        t.number: t.metrics["size_bytes"].mean
        for t in StudyFront.load(study).trials
        if "size_bytes" in t.metrics
    }
    head = seen.page.locator("#trials thead th", has_text="size of the files")
    for way, sign in (("ascending", 1), ("descending", -1)):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == way
        shown = [sign * sizes[n] for n in numbers(seen) if n in sizes]
        assert shown == sorted(shown)
        assert len(shown) > 50
    assert seen.page.locator("#trials thead th[aria-sort=none]").count() == 7


def test_the_table_is_filtered_by_outcome_and_by_words(seen: Visit, study: Path) -> None:
    front = StudyFront.load(study)
    for box in seen.page.locator("#filter input[type=checkbox]").all():
        box.uncheck()
    assert numbers(seen) == []
    seen.page.get_by_role("checkbox", name="on the front").check()
    assert numbers(seen) == sorted(t.number for t in front.members if t.number)
    for box in seen.page.locator("#filter input[type=checkbox]").all():
        box.check()
    kind = front.members[0].pipeline.stages[0].kind
    seen.page.get_by_label("Find").fill(kind.upper())
    with_kind = [t.number for t in front.trials if any(s.kind == kind for s in t.pipeline)]
    assert set(with_kind) <= set(numbers(seen)) | set(range(100, TRIALS + 1))
    assert re.match(r"\d+ of 131 trials", seen.page.locator("#count").inner_text())


def test_a_trial_opens_by_row_by_point_by_key_and_by_address(seen: Visit, study: Path) -> None:
    page = seen.page
    member = next(t for t in StudyFront.load(study).members if t.number)
    name = f"Trial {member.number}: on the front"
    title = page.locator("#trial-title")

    def closes() -> None:
        assert title.inner_text() == name
        assert page.url.endswith(f"#trial-{member.number}")
        assert f"--pick {member.number}" in page.locator("dialog pre").first.inner_text()
        page.keyboard.press("Escape")
        page.wait_for_function("!location.hash")
        assert not page.locator("dialog[open]").count()

    point = page.locator(f"svg[data-x] a[href='#trial-{member.number}']").first
    point.click()
    closes()
    point.focus()
    page.keyboard.press("Enter")
    closes()
    page.locator("#search").fill(f"{member.number}")
    row = page.locator(f"#trials tr[data-number='{member.number}']")
    row.locator("td").nth(1).click()
    closes()
    row.get_by_role("link").press("Enter")
    closes()
    page.evaluate(f"location.hash = '#trial-{member.number}'")
    page.wait_for_selector("dialog[open]")
    closes()


def test_a_point_that_is_no_link_opens_its_trial(seen: Visit) -> None:
    """Dominated trials are one path: the nearest to the mouse is meant."""
    page = seen.page
    place = page.evaluate(
        """() => {
          const chart = document.querySelector("svg[data-x]");
          const [x, y] = /M([\\d.]+) ([\\d.]+)h0/.exec(
            chart.querySelector("path.dominated").getAttribute("d")).slice(1).map(Number);
          chart.scrollIntoView({block: "center"});
          const at = new DOMPoint(x, y).matrixTransform(chart.getScreenCTM());
          return [at.x, at.y];
        }"""
    )
    page.mouse.move(*place)
    hint = page.locator("#hint").inner_text()
    page.mouse.click(*place)
    title = page.locator("#trial-title").inner_text()
    number = re.match(r"Trial (\d+)", title)
    assert number is not None
    assert hint.startswith(f"trial {number[1]}, ")


def test_other_peoples_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    """In the table, in a trial's own view, and where the command to copy names the directory."""
    evil = "</script><img src=x onerror=alert(1)>\u202e"
    directory = toy_study(tmp_path / "<b>'study'", trials=3)
    failure = Failure("tune", "Refused", evil)
    pipeline = Pipeline((StageSpec("tune", {"loss": evil}),))
    with Store.open(directory, write=True) as store:
        store.add(Trial(900, pipeline, TrialStatus.FAILED, Origin((evil,)), failure=failure))
    with visit(browser, str(write_report(directory, tmp_path / "r.html"))) as opened:
        for number in (900, 0):
            opened.page.evaluate(f"location.hash = '#trial-{number}'")
            opened.page.wait_for_selector(f"text=Trial {number}:")
            assert opened.page.locator("img, b b").count() == 0
        assert opened.page.locator("#trials small", has_text="<img src=x").count() == 1
        assert "\u202e" not in opened.page.locator("body").inner_text()
        assert opened.errors == []
        assert opened.abroad == []


def test_without_javascript_all_is_there_as_a_plain_table(browser: Browser, report: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(Path(report).as_uri())
    assert page.locator("#trials tbody tr").count() == TRIALS + 1
    assert not page.locator("#filter").is_visible()
    context.close()


def test_on_paper_no_column_is_cut(browser: Browser, report: str) -> None:
    with visit(browser, report, width=718) as opened:
        opened.page.emulate_media(media="print")
        opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert opened.overflow() == 0
        cut = opened.page.evaluate(
            "[...document.querySelectorAll('table')]"
            ".filter((t) => t.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert cut == 0
        assert opened.page.locator(".members details:not([open])").count() == 0
