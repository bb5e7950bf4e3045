"""Numbering channels through splits and gated linear units, for Torch-Pruning's graph.

Its own numbering of a split takes the pieces to be used once each, in order, and knows no gated
linear units; here the autograd graph is asked which piece a reader takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch_pruning as tp


@dataclass(frozen=True)
class Pieces:
    """Channels of a whole as channels of equal numbering in each of some pieces of it, and back."""

    spans: tuple[tuple[int, int], ...]
    back: bool

    def __call__(self, channels: Sequence[Any]) -> list[Any]:
        index = tp._helpers._HybridIndex
        if self.back:
            return [
                index(idx=c.idx + start, root_idx=c.root_idx)
                for c in channels
                for start, stop in self.spans
                if c.idx < stop - start
            ]
        return [
            index(idx=c.idx - start, root_idx=c.root_idx)
            for c in channels
            for start, stop in self.spans
            if start <= c.idx < stop
        ]


def is_glu(node: Any) -> bool:
    """Whether a node is a gated linear unit over channels: one half gates the other."""
    return type(node.grad_fn).__name__ == "GluBackward0"


def number_split(graph: Any, node: Any) -> None:
    """Number channels from a split over them to each of its readers, and back."""
    sizes = _piece_sizes(graph, node)
    if sizes is None:
        return
    starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    for reader in dict.fromkeys(node.outputs):
        taken = [
            number
            for function, number in getattr(reader.grad_fn, "next_functions", ())
            if function is node.grad_fn
        ]
        spans = tuple((starts[i], starts[i + 1]) for i in dict.fromkeys(taken))
        if spans:
            _set(node, reader, spans)


def number_glu(graph: Any, node: Any) -> None:
    """Number channels into a gated linear unit: channel c of its result is c and c + width."""
    shape, dim = node.grad_fn._saved_self.shape, node.grad_fn._saved_dim
    if _signed(dim) % len(shape) not in (1, len(shape) - 1):
        return
    for source in dict.fromkeys(node.inputs):
        width = tp.dependency.shape_infer.infer_out_channels_recursively(graph, source, [0])
        if width is None or width % 2:
            return
        half = width // 2
        _set(source, node, ((0, half), (half, width)))


def _set(whole: Any, part: Any, spans: tuple[tuple[int, int], ...]) -> None:
    for dep in whole.dependencies:
        if dep.target is part and part in whole.outputs:
            dep.index_mapping[0] = Pieces(spans, back=False)
    for dep in part.dependencies:
        if dep.target is whole:
            dep.index_mapping[0] = Pieces(spans, back=True)


def _piece_sizes(graph: Any, node: Any) -> list[int] | None:
    """Channels of every piece as the model is now; None where the split is not over channels."""
    function = node.grad_fn
    shape = [int(size) for size in function._saved_self_sym_sizes]
    dim = _signed(function._saved_dim) % len(shape)
    if dim not in (1, len(shape) - 1):
        return None
    infer = tp.dependency.shape_infer.infer_out_channels_recursively
    width = next((w for n in node.inputs if (w := infer(graph, n, [0])) is not None), None)
    if hasattr(function, "_saved_split_sizes"):
        sizes = [int(size) for size in function._saved_split_sizes]
        return sizes if width == sum(sizes) else None
    pieces = -(-shape[dim] // int(function._saved_split_size))
    if width is None or width % pieces or shape[dim] % pieces:
        return None
    return [width // pieces] * pieces


def _signed(dim: int) -> int:
    """A dimension as autograd saves it: the negative ones as unsigned numbers."""
    return dim - 2**64 if dim >= 2**63 else dim
