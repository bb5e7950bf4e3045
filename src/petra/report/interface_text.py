"""What a model takes and returns, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from petra.core.interface import BATCH, Interface, TensorSpec


def sizes_in_words(spec: TensorSpec, declared: Sequence[int | None] = ()) -> str:
    """Which axes are free and which are fixed, where need be by what the file itself declares."""
    free, fixed = [], []
    sizes = declared if len(declared) == len(spec.axes) else spec.shape
    for i, (axis, size) in enumerate(zip(spec.axes, sizes, strict=True)):
        name = axis.name or (BATCH if i == spec.batch else f"axis {i}")
        if size is None and axis.size is None:
            bounds = f", {axis.least} to {axis.most} in the data" if axis.most is not None else ""
            free.append(f"{name} (any size{bounds})")
        else:
            fixed.append(f"{name} ({axis.size if size is None else size})")
    parts = [f"free: {', '.join(free)}"] if free else []
    parts += [f"fixed: {', '.join(fixed)}"] if fixed else []
    return "; ".join(parts) or "a single number"


def observed_in_words(seen: Mapping[str, float]) -> str:
    """Range, mean and deviation of numbers that were looked at, '' where there are none."""
    if "deviation" not in seen:
        return "no number among them" if seen else ""
    text = (
        f"from {seen['least']:.4g} to {seen['most']:.4g}, mean {seen['mean']:.4g}, standard"
        f" deviation {seen['deviation']:.4g}"
    )
    return text + (f", {seen['missing']:.1%} missing" if seen["missing"] else "")


def at_lengths(interface: Interface | None) -> str:
    """The lengths that speed was measured at, to end a sentence; "" for items of one shape."""
    lengths = interface.lengths if interface else ()
    if not lengths:
        return ""
    return (
        f", of items of length {lengths[0]}, the median of the data; long items have length"
        f" {lengths[-1]}, its 95th percentile"
    )
