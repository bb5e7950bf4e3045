"""Why a candidate is slower, why parts of it are in float, and what it cost: all of it as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from petra.core.measurement import Measurement


@dataclass(frozen=True)
class LayerRow:
    """A layer of the file: its name ('' where nobody knows it) and place, what it is, bytes,
    milliseconds and their share of all operators' (None: not known), the precision that the file
    asks for and that it ran in, why that is float ('' where it is not), and the milliseconds of the
    same layer in the untouched model's file.
    """

    place: int
    name: str
    kind: str
    weights: tuple[int, ...]
    bytes: int
    asked: str
    ran: str
    ms: float | None = None
    share: float | None = None
    reason: str = ""
    base_ms: float | None = None
    depthwise: bool = False

    @property
    def label(self) -> str:
        """'layer1.0.conv1 (Conv 16x16x3x3)'."""
        sizes = "x".join(map(str, self.weights))
        what = f"{self.kind} {sizes}" if sizes else self.kind
        return f"{self.name} ({what})" if self.name else f"layer {self.place + 1} ({what})"

    @property
    def factor(self) -> float | None:
        """Times the untouched model's time; None where one of both is not known."""
        return self.ms / self.base_ms if self.ms is not None and self.base_ms else None

    @property
    def in_float(self) -> bool:
        """Whether it computes in float, as far as anybody says."""
        return (self.ran or self.asked) not in ("int8", "dynamic int8")


@dataclass(frozen=True)
class FamilyRow:
    """Operators that are for the same: how many ran, as what, their milliseconds and share, and
    those of the untouched model (None: it was not profiled).
    """

    family: str
    count: int
    kinds: tuple[str, ...]
    ms: float
    share: float
    base_count: int | None = None
    base_ms: float | None = None

    @property
    def factor(self) -> float | None:
        return self.ms / self.base_ms if self.base_ms else None


@dataclass(frozen=True)
class Cost:
    """What a candidate cost: quality against the untouched model's on the same items, by split;
    what every stage says of itself; seconds of building it; the largest tensors of its file, as
    (what, bytes, share of all tensors).
    """

    quality: tuple[tuple[str, Measurement], ...] = ()
    stages: tuple[tuple[str, str], ...] = ()
    train_s: float | None = None
    tensors: tuple[tuple[str, int, float], ...] = ()


@dataclass(frozen=True)
class Advice:
    """What to do, with the figure that it is for and where that it helps was measured or is
    documented.
    """

    rule: str
    text: str
    source: str


@dataclass(frozen=True)
class Explanation:
    """Why a candidate is slower, why parts of it are in float, and what it cost.

    `summary` is what matters in sentences. `operators` is empty, and `refused` says why, where the
    runtime has no profile that petra reads. `explained` is the share of an untraced call that the
    operators' times add up to as they were recorded; where that is more than 1, `recording_us` were
    taken off each of them. `unfused` are quantize and dequantize operators that the runtime
    still runs although they lie at a layer.
    """

    subject: str
    runtime: str
    summary: tuple[str, ...]
    layers: tuple[LayerRow, ...]
    operators: tuple[FamilyRow, ...]
    cost: Cost
    advice: tuple[Advice, ...]
    total_ms: float | None = None
    untraced_ms: float | None = None
    base_ms: float | None = None
    ratio: float | None = None
    traced_ms: float | None = None
    explained: float | None = None
    statistic: str = ""
    calls: int = 0
    resolution_us: float = 0.0
    recording_us: float = 0.0
    unfused: tuple[str, ...] = ()
    unmatched: str = ""
    refused: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def floats(self) -> tuple[LayerRow, ...]:
        """Layers in float of which a reason is known, those that take longest first."""
        found = [row for row in self.layers if row.reason]
        return tuple(sorted(found, key=lambda row: (-(row.ms or 0.0), row.place)))

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        plain = asdict(self)
        for row, layer in zip(plain["layers"], self.layers, strict=True):
            row |= {"label": layer.label, "factor": layer.factor, "in_float": layer.in_float}
        for row, family in zip(plain["operators"], self.operators, strict=True):
            row["factor"] = family.factor
        return plain

    def __str__(self) -> str:
        from petra.explaining.words import in_words

        return in_words(self)
