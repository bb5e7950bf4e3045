"""What the numbers mean that a model takes and returns, as far as somebody said it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from petra.core.text import printable

LONGEST, MOST_CLASSES = 10_000, 10_000
"""Characters of a text, and names of classes, that are kept."""


@dataclass(frozen=True)
class Meaning:
    """What whoever uses a model's file has to know of its inputs and its output.

    `preprocessing`: what raw data goes through before it is an input, '' where nobody said.
    `inside`: what the model itself does to its inputs before, and to its output after, a line each.
    `output`: what the output is that is judged, '' where only its maker knows. `classes`: names of
    the classes, in the output's order. `scores`: the output has a score of each class.
    """

    preprocessing: str = ""
    inside: tuple[str, ...] = ()
    output: str = ""
    classes: tuple[str, ...] = ()
    scores: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as JSON has it."""
        return asdict(self) | {"inside": list(self.inside), "classes": list(self.classes)}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Meaning:
        """Inverse of `as_dict`, on one line each. Raises ValueError for anything else."""
        if set(plain) != set(asdict(Meaning())) or not isinstance(plain["scores"], bool):
            raise ValueError("it does not say what inputs and outputs mean")
        return Meaning(
            _text(plain["preprocessing"]),
            _texts(plain["inside"], 1000),
            _text(plain["output"]),
            _texts(plain["classes"], MOST_CLASSES),
            plain["scores"],
        )


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST:
        raise ValueError(f"at most {LONGEST} characters say what inputs and outputs mean")
    return printable(" ".join(value.split()))


def _texts(value: object, most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"at most {most} texts are a list of them")
    return tuple(map(_text, value))
