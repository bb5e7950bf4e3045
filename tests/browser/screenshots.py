"""Pictures of pages, and a look at their faults: ``python tests/browser/screenshots.py PAGE ...``.

Every PAGE, a file or a URL, is shown in headless Chromium at 1400 and 400 pixels, light and dark,
and as it is printed on A4; axe-core looks at each. Ends with 1 where a page asks another machine
for anything, runs into an error, is wider than its window, or where axe-core finds a serious fault.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from browsing import Scheme, Visit, chromium, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTHS = (1400, 400)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
PAPER = 718  # CSS pixels between the margins of A4


def faults(seen: Visit) -> list[str]:
    """All that must not be, a line for each."""
    found = [f"asks for {address}" for address in seen.abroad]
    found += [f"error: {text}" for text in seen.errors]
    if (wide := seen.overflow()) > 0:
        found.append(f"{wide} pixels wider than the window")
    return found + seen.violations()


def pictures(browser: Browser, address: str, out: Path, name: str) -> list[str]:
    """Take all pictures of a page into `out`; what is wrong with it."""
    found = []
    for width in WIDTHS:
        for scheme in SCHEMES:
            with visit(browser, address, width=width, scheme=scheme) as seen:
                seen.page.screenshot(path=out / f"{name}-{width}-{scheme}.png", full_page=True)
                found += [f"{name} at {width}, {scheme}: {fault}" for fault in faults(seen)]
    with visit(browser, address, width=PAPER) as seen:
        seen.page.pdf(path=out / f"{name}.pdf", format="A4")
        seen.page.emulate_media(media="print")
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        seen.page.screenshot(path=out / f"{name}-printed.png", full_page=True)
        found += [f"{name} printed: {fault}" for fault in faults(seen)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", help="files or URLs")
    parser.add_argument("--out", type=Path, default=Path("screenshots"), help="where they go")
    parser.add_argument("--axe", help="axe.min.js; by default PETRA_AXE, or from npm")
    given = parser.parse_args()
    if given.axe:
        os.environ["PETRA_AXE"] = given.axe
    given.out.mkdir(parents=True, exist_ok=True)
    found = []
    with chromium() as browser:
        for i, address in enumerate(given.pages):
            name = f"{i}-{Path(address).stem}" if len(given.pages) > 1 else Path(address).stem
            found += pictures(browser, address, given.out, name or "page")
    print("\n".join(found) or f"no fault; pictures in {given.out}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
