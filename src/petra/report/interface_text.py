"""What a model takes and returns, in words."""

from __future__ import annotations

from petra.core.interface import Interface


def interface_lines(interface: Interface | None) -> list[str]:
    """A line for every input and output."""
    if interface is None:
        return ["Not recorded."]
    return [f"takes {tensor}" for tensor in interface.inputs] + [
        f"returns {tensor}" for tensor in interface.outputs
    ]


def at_lengths(interface: Interface | None) -> str:
    """The lengths that speed was measured at, to end a sentence; "" for items of one shape."""
    lengths = interface.lengths if interface else ()
    if not lengths:
        return ""
    return (
        f", of items of length {lengths[0]}, the median of the data; long items have length"
        f" {lengths[-1]}, its 95th percentile"
    )
