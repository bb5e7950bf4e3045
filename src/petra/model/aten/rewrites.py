"""Exact rewrites of an exported ATen graph that leave quantizer and runtime less to do.

Every function here changes a `torch.fx.GraphModule` in place and keeps its output, up to float
rounding, for every input. They exist because the integer kernels of deployment runtimes cover few
operators: what can be said with a covered operator is said with it.
"""

from __future__ import annotations

from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from petra.model.aten.graph import (
    ACTIVATIONS,
    VIEWS,
    absorbs_batch_norm,
    argument,
    aten,
    batch_norm_affine,
    constant,
    is_inference_batch_norm,
    new_buffer,
    readers,
    shape_of,
)

_FUNCTIONAL = {
    aten.relu_.default: aten.relu.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.relu6_.default: aten.relu6.default,
    aten.clamp_.default: aten.clamp.default,
    aten.clamp_min_.default: aten.clamp_min.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.silu_.default: aten.silu.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.elu_.default: aten.elu.default,
    aten.add_.Tensor: aten.add.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.dropout_.default: aten.dropout.default,
}
_ORDER_KEEPING = {
    aten.cat.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
}
_ADAPTIVE_AVERAGE = {
    aten.adaptive_avg_pool1d.default: 1,
    aten.adaptive_avg_pool2d.default: 2,
    aten.adaptive_avg_pool3d.default: 3,
}
_CONV_BY_SPATIAL_DIMS = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


def drop_identities(graph: Graph) -> None:
    """Remove what does nothing in evaluation: dropout, full slices, contiguous, detach.

    Memory layout is not kept, so `view`, which demands one, becomes `reshape`.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is aten.view.default:
            node.target = aten.reshape.default
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
            continue
        dropout = node.target in (
            aten.dropout.default,
            aten.dropout_.default,
            aten.feature_dropout.default,
        )
        if (
            (dropout and not node.args[2])
            or node.target in (aten.contiguous.default, aten.detach.default, aten.alias.default)
            or _is_full_slice(node)
        ):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _is_full_slice(node: Node) -> bool:
    if node.target is not aten.slice.Tensor:
        return False
    start, end = argument(node, 2, "start"), argument(node, 3, "end")
    whole = end is None or (isinstance(end, int) and end >= 2**62)
    return (start is None or start == 0) and whole and argument(node, 4, "step", 1) == 1


def functionalise(graph: Graph) -> None:
    """Turn in-place activations, additions and products into their functional forms.

    A quantize-dequantize pair copies its input, so a mutation behind one would be lost: later
    readers of the mutated value are redirected to the result. An operator that mutates a *view*
    (`x[:, :4].relu_()`), or a tensor that a view was taken of before, is left alone, because
    another tensor changes too; `in_place_calls` then lists it.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _FUNCTIONAL:
            continue
        mutated = node.args[0]
        if not isinstance(mutated, Node) or mutated.target in VIEWS:
            continue
        if any(user.target in VIEWS and order[user] < order[node] for user in mutated.users):
            continue
        node.target = _FUNCTIONAL[node.target]
        for user in list(mutated.users):
            if order[user] > order[node]:
                user.replace_input_with(mutated, node)


def global_average_as_mean(graph: Graph) -> None:
    """Write adaptive average pooling to one cell as a mean over the spatial dimensions.

    Exporters decompose the pooling into strided views with shape arithmetic; a mean stays one node.
    """
    for node in graph.nodes:
        spatial = _ADAPTIVE_AVERAGE.get(node.target) if node.op == "call_function" else None
        if spatial is None:
            continue
        size = node.args[1]
        cells = list(size) if isinstance(size, (list, tuple)) else [size]
        if all(cell == 1 for cell in cells):
            node.target = aten.mean.dim
            node.args = (node.args[0], list(range(-spatial, 0)), True)


def clip_before_moving(gm: GraphModule) -> None:
    """relu(cat(a, b)) = cat(relu(a), relu(b)), and the same over max pooling: activations join the
    layers they follow.

    A layer quantized after its activation wastes no codes on values the activation removes.
    """
    moved = True
    while moved:
        moved = False
        for node in list(gm.graph.nodes):
            if (
                node.op != "call_function"
                or node.target not in ACTIVATIONS
                or len(node.all_input_nodes) != 1
            ):
                continue
            mover = node.all_input_nodes[0]
            if mover.target not in _ORDER_KEEPING or len(readers(mover)) != 1:
                continue
            clipped: dict[Node, Node] = {}
            for part in mover.all_input_nodes:
                with gm.graph.inserting_before(mover):
                    clipped[part] = gm.graph.call_function(
                        node.target, (part, *node.args[1:]), dict(node.kwargs)
                    )
                clipped[part].meta = {**node.meta, "val": part.meta["val"]}
            node.replace_all_uses_with(mover)
            gm.graph.erase_node(node)
            mover.args = map_arg(mover.args, clipped.__getitem__)
            moved = True
    gm.graph.lint()
    gm.recompile()


def split_batch_norm_over_concat(gm: GraphModule) -> None:
    """BN(cat(a, b)) = cat(BN_a(a), BN_b(b)): each part then fuses into its convolution.

    Applies when the concatenation is over channels, nothing else reads it, and every part can
    absorb its share.
    """
    for node in list(gm.graph.nodes):
        cat = node.args[0] if is_inference_batch_norm(node) else None
        if (
            not isinstance(cat, Node)
            or cat.target is not aten.cat.default
            or len(readers(cat)) != 1
        ):
            continue
        parts = list(cat.args[0]) if isinstance(cat.args[0], (list, tuple)) else []
        if argument(cat, 1, "dim", 0) != 1 or not all(absorbs_batch_norm(p) for p in parts):
            continue
        statistics = [constant(gm, a) if isinstance(a, Node) else None for a in node.args[1:5]]
        start, normalised = 0, []
        for index, part in enumerate(parts):
            stop = start + int(shape_of(part)[1])
            with gm.graph.inserting_before(cat):
                sliced = [
                    (
                        None
                        if s is None
                        else new_buffer(gm, f"_{node.name}_{index}_{k}", s[start:stop].clone())
                    )
                    for k, s in enumerate(statistics)
                ]
                new = gm.graph.call_function(
                    aten.batch_norm.default, (part, *sliced, *node.args[5:])
                )
            new.meta = {**node.meta, "val": part.meta["val"]}
            normalised.append(new)
            start = stop
        cat.args = (normalised, *cat.args[1:])
        node.replace_all_uses_with(cat)
        gm.graph.erase_node(node)
    gm.graph.lint()
    gm.recompile()


def batch_norm_as_depthwise_conv(gm: GraphModule) -> None:
    """Write a batch norm that no layer absorbed as the 1x1 depthwise convolution that it is.

    Per-channel 8-bit weights hold a single number per channel exactly, so quantization adds no
    error of its own here. Inputs are `(n, c, ...)` with 1 to 3 spatial dimensions; a BN over `(n,
    c)` features is left in float.
    """
    for node in list(gm.graph.nodes):
        if not is_inference_batch_norm(node):
            continue
        source = node.args[0]
        spatial = len(shape_of(source)) - 2
        affine = batch_norm_affine(gm, node)
        if spatial not in _CONV_BY_SPATIAL_DIMS or absorbs_batch_norm(source) or affine is None:
            continue
        scale, shift = affine
        channels = int(shape_of(source)[1])
        with gm.graph.inserting_before(node):
            kernel = new_buffer(
                gm, f"_{node.name}_scale", scale.reshape(channels, 1, *[1] * spatial).clone()
            )
            offset = new_buffer(gm, f"_{node.name}_shift", shift.clone())
        ones, zeros = [1] * spatial, [0] * spatial
        node.target = _CONV_BY_SPATIAL_DIMS[spatial]
        node.args = (source, kernel, offset, ones, zeros, ones, channels)
    gm.recompile()
