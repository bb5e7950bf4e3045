"""Where the labels of a chart's points go: beside them, and not over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from petra.report.svg import BOTTOM, CHARACTER, HEIGHT, LEFT, LINE, RIGHT, TOP, WIDTH, text

MOST = 60  # labels that a chart has


@dataclass(frozen=True)
class Label:
    """What is to be written beside the point at (`x`, `y`)."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        apart = self.right < other.left or other.right < self.left
        return not (apart or self.bottom < other.top or other.bottom < self.top)

    @property
    def inside(self) -> bool:
        return (
            self.left >= LEFT
            and self.right <= WIDTH - RIGHT / 2
            and self.top >= TOP
            and self.bottom <= HEIGHT - BOTTOM
        )


def placed(labels: Sequence[Label], *, kind: str, gap: float = 9.0) -> str:
    """The labels as SVG, those named first having the first choice of a place; one for which there
    is none without covering a point or another label is left out, and so are all after the first
    `MOST`. O(labels).
    """
    taken = [_Box(p.x - 6, p.y - 6, p.x + 6, p.y + 6) for p in labels]
    found = []
    for i, label in enumerate(labels[:MOST]):
        others = taken[:i] + taken[i + 1 :]
        for anchor, x, y, box in _places(label, gap):
            if box.inside and not any(box.meets(other) for other in others):
                found.append(text(x, y, label.text, kind=kind, anchor=anchor))
                taken.append(box)
                break
    return f"<g aria-hidden=true>{''.join(found)}</g>" if found else ""


def _places(label: Label, gap: float) -> list[tuple[str, float, float, _Box]]:
    """(anchor, x, y of the base line, box) to the right, to the left, above and below."""
    width, x, y = CHARACTER * len(label.text), label.x, label.y
    half = width / 2
    return [
        ("start", x + gap, y + 4, _Box(x + gap, y - 7, x + gap + width, y + 6)),
        ("end", x - gap, y + 4, _Box(x - gap - width, y - 7, x - gap, y + 6)),
        ("middle", x, y - gap, _Box(x - half, y - gap - LINE + 2, x + half, y - gap + 2)),
        ("middle", x, y + gap + 9, _Box(x - half, y + gap - 2, x + half, y + gap + 11)),
    ]
