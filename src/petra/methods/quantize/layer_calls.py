"""Calls of layers with weights in a traced graph: what they take, and which weights are codes."""

from __future__ import annotations

import math

import torch
from torch.fx import Node

from petra.methods.quantize.quantized_share import LayerCall
from petra.model.aten.graph import aten, sizes
from petra.model.aten.macs import multiply_accumulates, recurrent_matrices


def layer_call(node: Node, path: str, reason: str, *, in_8_bits: bool) -> LayerCall:
    """The record of a call. Weights that are decoded for it count as the codes they are."""
    given = recurrent_matrices(node) or node.all_input_nodes
    held = [source.all_input_nodes[0] if _is_decoded(source) else source for source in given]
    constants = [source for source in held if source.op == "get_attr" and len(sizes(source)) > 1]
    weights = {str(source.target): math.prod(sizes(source)) for source in constants}
    return LayerCall(path, multiply_accumulates(node), weights, reason, in_8_bits)


def computes_with_codes(node: Node) -> bool:
    """Whether a call multiplies codes with activations that it quantizes on the spot."""
    return str(node.target).startswith("petra.dynamic")


def reads_codes(node: Node) -> bool:
    """Whether a call looks up int8 weights, as quantized embeddings do, is given decoded ones, as
    recurrent layers are, or computes with them.
    """
    if computes_with_codes(node) or any(map(_is_decoded, recurrent_matrices(node))):
        return True
    table = node.args[0] if node.target is aten.embedding.default else None
    return isinstance(table, Node) and table.meta["val"].dtype == torch.int8


def _is_decoded(node: Node) -> bool:
    return str(node.target) == "petra.decode.default"
