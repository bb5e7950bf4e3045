"""Judging what a model file returns: numbers or not, and what depends on the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from petra.core.errors import ArtifactError
from petra.runtimes.base import Arrays

GIVE_INPUTS = (
    "if the model wants other inputs than standard normal numbers, zeros and ones: --inputs"
    " file.npz"
)


def refuse_nan(outputs: Arrays, *, call: str, random: bool) -> None:
    """Raise ArtifactError for an output with NaN in it. `call` says what was run."""
    for name, array in outputs.items():
        count = int(np.isnan(array).sum()) if array.dtype.kind in "fc" else 0
        if count:
            raise ArtifactError(
                f"output {name!r} contains NaN or infinity: NaN at {count} of {array.size} places,"
                f" for {call}",
                hint=(
                    GIVE_INPUTS
                    if random
                    else "the weights are broken, or the given inputs are not what it takes"
                ),
            )


def infinite(outputs: Arrays) -> dict[str, np.ndarray]:
    """For outputs with infinities: +1, -1 or 0 at every place."""
    signs = {name: np.sign(a) * np.isinf(a) for name, a in outputs.items() if a.dtype.kind == "f"}
    return {name: sign for name, sign in signs.items() if sign.any()}


def remark_on_infinities(found: Arrays, again: Arrays | None, *, call: str) -> list[str]:
    """Say where there are infinities. Those that do not depend on the inputs are there by design.

    found: outputs; again: those for other random inputs, None when a person gave the inputs, and
    with them answers for what comes out. Raises ArtifactError for infinities that random inputs
    bring about.
    """
    notes, others = [], infinite(again or {})
    for name, signs in infinite(found).items():
        which = " and ".join(
            text for sign, text in ((1, "+inf"), (-1, "-inf")) if (signs == sign).any()
        )
        text = f"{which} at {int((signs != 0).sum())} of {signs.size} places"
        if again is None:
            notes.append(f"output {name!r} has {text}")
        elif name in others and np.array_equal(others[name], signs):
            notes.append(
                f"output {name!r} has {text}, whatever the inputs: taken as meant, as a mask is"
            )
        else:
            raise ArtifactError(
                f"output {name!r} contains NaN or infinity: {text}, which depend on the inputs, for"
                f" {call}",
                hint=GIVE_INPUTS,
            )
    return notes


def batch_axes(small: Arrays, large: Arrays, sizes: tuple[int, int]) -> dict[str, int | None]:
    """The axis of every output that has the batch's two sizes in the two calls; else None."""
    found: dict[str, int | None] = {}
    for name, array in large.items():
        shapes = zip(small[name].shape, array.shape, strict=False) if name in small else ()
        found[name] = next((axis for axis, pair in enumerate(shapes) if pair == sizes), None)
    return found


def batch_difference(
    whole: Arrays, alone: Sequence[Arrays], axes: Mapping[str, int | None]
) -> float:
    """Largest difference between an item's outputs alone and among others over the spread of all.

    Over finite places, and outputs that have an item's part.
    """
    worst = 0.0
    for name, array in whole.items():
        axis = axes.get(name)
        if axis is None or array.dtype.kind != "f":
            continue
        single = np.concatenate([one[name] for one in alone], axis=axis).astype(np.float64)
        finite = (
            np.isfinite(array) & np.isfinite(single)
            if single.shape == array.shape
            else np.zeros(0, bool)
        )
        if finite.any():
            values = array.astype(np.float64)[finite]
            worst = max(
                worst, float(np.abs(single[finite] - values).max()) / (float(np.std(values)) or 1.0)
            )
    return worst
