"""Where the labels of a chart's points go: beside them, and not over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from petra.report.svg import BOTTOM, CHARACTER, HEIGHT, LEFT, LINE, RIGHT, TOP, WIDTH, text

MOST = 60  # labels that a chart has


@dataclass(frozen=True)
class Label:
    """What is to be written beside the point at (`x`, `y`), `gap` units away from its middle."""

    x: float
    y: float
    text: str
    gap: float = 9.0


@dataclass(frozen=True)
class Box:
    """Room that is taken."""

    left: float
    top: float
    right: float
    bottom: float

    @staticmethod
    def of(x: float, y: float, text: str, anchor: str) -> Box:
        """That of a text whose base line starts, or ends, at a place."""
        width = CHARACTER * len(text)
        left = x if anchor == "start" else x - width if anchor == "end" else x - width / 2
        return Box(left, y - LINE + 2, left + width, y + 2)

    def meets(self, other: Box) -> bool:
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


def placed(labels: Sequence[Label], *, kind: str, covered: Sequence[Box] = ()) -> str:
    """The labels as SVG, those named first having the first choice of a place; one for which there
    is none without covering a point, another label or what is `covered` is left out, and so are all
    after the first `MOST`. O(labels).
    """
    points = [Box(p.x - 6, p.y - 6, p.x + 6, p.y + 6) for p in labels]
    taken, found = list(covered), []
    for i, label in enumerate(labels[:MOST]):
        others = [*points[:i], *points[i + 1 :], *taken]
        for x, y, anchor in _places(label):
            box = Box.of(x, y, label.text, anchor)
            if box.inside and not any(box.meets(other) for other in others):
                found.append(text(x, y, label.text, kind=kind, anchor=anchor))
                taken.append(box)
                break
    return f"<g aria-hidden=true>{''.join(found)}</g>" if found else ""


def _places(label: Label) -> list[tuple[float, float, str]]:
    """To the right, to the left, above and below: the base line's place, and its anchor."""
    x, y, gap = label.x, label.y, label.gap
    return [
        (x + gap, y + 4, "start"),
        (x - gap, y + 4, "end"),
        (x, y - gap, "middle"),
        (x, y + gap + 9, "middle"),
    ]
