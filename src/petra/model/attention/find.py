"""Attention layers of any make: where their heads are.

Nobody agrees on how to write attention: projections are apart or fused, heads are counted in
attributes of many names, position biases have a column per head. So the layer that reads the heads
is found by following autograd's graph, the rest is a *reading* of attributes and shapes, and there
may be several. Whoever cuts must try them: `petra.methods.prune.heads` accepts a reading only when
the cut layer computes what it should.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from petra.model.attention.heads import Heads, Part, weight_dim, weight_width, within
from petra.model.kinds import Convolution, is_transposed_linear, mixes
from petra.model.surgery import (
    differentiable,
    evaluating,
    has_derived_weight,
    shared_weights,
    tensors_in,
)

HEAD_SIZES = (
    "head_dim",
    "attention_head_size",
    "key_value_proj_dim",
    "head_size",
    "d_head",
    "dim_head",
    "d_kv",
)
HEAD_COUNTS = (
    "num_heads",
    "num_attention_heads",
    "n_heads",
    "n_head",
    "heads",
    "nhead",
    "num_query_heads",
)
KEY_COUNTS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
WIDTHS = ("all_head_size", "inner_dim", "split_size", "attn_dim")
EITHER_WIDTHS = ("embed_dim", "hidden_size", "d_model", "dim")
"""Attributes that hold the width of all heads in some models, the stream's in others."""

ATTENDS = re.compile("softmax|scaleddotproduct", re.IGNORECASE)
"""Matches the names of autograd nodes that attention has."""

Forward = Callable[[nn.Module], Iterable[Tensor]]


def upstream(start: Iterable[Any], stops: Mapping[Any, str]) -> tuple[set[str], set[Any]]:
    """Labels of the first `stops` met on every way back through autograd's graph from `start`, and
    all nodes met.
    """
    found: set[str] = set()
    stack = list(start)
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node in stops:
            found.add(stops[node])
            continue
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                stack.append(before)
    return found, seen


def find_heads(
    model: nn.Module, forward: Forward
) -> tuple[dict[str, tuple[Heads, ...]], dict[str, str]]:
    """The readings of every attention layer, the likeliest first, and why others have none.

    An attention layer is the innermost module with an attribute for the size or the number of its
    heads that holds layers with weights. `nn.MultiheadAttention` does not call its layers and is
    not found: see `separate_attention`. Cost: one forward pass.
    """
    readers = _readers(model, forward)
    shared = shared_weights(model)
    weighted = [path for path, module in model.named_modules() if mixes(module)]
    holders = [
        path
        for path, module in model.named_modules()
        if not isinstance(module, nn.MultiheadAttention)
        and (_first(module, HEAD_SIZES) or _first(module, HEAD_COUNTS))
        and any(within(p, path) for p in weighted)
    ]
    found: dict[str, tuple[Heads, ...]] = {}
    refused: dict[str, str] = {}
    for path in holders:
        if any(other != path and within(other, path) for other in holders):
            continue
        try:
            found[path] = tuple(_readings(model, path, readers, shared))
        except _NoReading as reason:
            refused[path] = str(reason)
    return found, refused


class _NoReading(Exception):
    """Why a module's heads cannot be made out."""


def _readers(model: nn.Module, forward: Forward) -> dict[str, set[str]]:
    """For every layer that mixes what attention made, the layers that attention was made of."""
    made: dict[Any, str] = {}
    taken: dict[str, list[Any]] = {}

    def record(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            taken.setdefault(path, []).extend(
                t.grad_fn for t in tensors_in(inputs) if t.grad_fn is not None
            )
            made.update((t.grad_fn, path) for t in tensors_in(output) if t.grad_fn is not None)

        return hook

    hooks = [m.register_forward_hook(record(path)) for path, m in model.named_modules() if mixes(m)]
    try:
        with evaluating(model), differentiable(model):
            list(forward(model))
    finally:
        for handle in hooks:
            handle.remove()
    found = {}
    for path, nodes in taken.items():
        sources, between = upstream(nodes, made)
        if any(ATTENDS.search(node.name()) for node in between):
            found[path] = sources
    return found


def _readings(
    model: nn.Module,
    path: str,
    readers: Mapping[str, set[str]],
    shared: Mapping[str, tuple[str, ...]],
) -> Iterator[Heads]:
    """All readings of one module. Raises _NoReading."""
    module = model.get_submodule(path)
    made = {p: sorted(s for s in sources if within(s, path)) for p, sources in readers.items()}
    reader = max(
        (p for p in made if made[p]), key=lambda p: (len(made[p]), within(p, path)), default=None
    )
    if reader is None:
        raise _NoReading("which layer reads its heads cannot be followed")
    producers = made[reader]
    for p in (*producers, reader):
        _check_layer(p, model.get_submodule(p), shared)
    width = weight_width(model.get_submodule(reader), inputs=True)
    count, size = _first(module, HEAD_COUNTS), _first(module, HEAD_SIZES)
    if size is None:
        size = max(1, width // (count or 1))
    if width % size:
        raise _NoReading(
            f"the {width} channels that {reader!r} reads are no multiple of a head's {size}"
        )
    heads = width // size
    widths = {p: weight_width(model.get_submodule(p), inputs=False) for p in producers}
    keys = _key_heads(heads, size, list(widths.values()))
    if keys < 2:
        raise _NoReading(
            "it has a single head" if keys == heads else "all its heads share one key and value"
        )
    layouts = [_layouts(p, w, heads, keys, size) for p, w in widths.items()]
    tables = _tables(model, path, heads, keys)
    near = _tables(model, path.rpartition(".")[0], heads, keys) if path else ()
    sure = _counts(module, path, heads, keys, size, WIDTHS)
    unsure = _counts(module, path, heads, keys, size, (*WIDTHS, *EITHER_WIDTHS))
    read = _part(
        reader, model.get_submodule(reader), "weight", (heads // keys * size,), inputs=True
    )
    for counts, extras, blocks in itertools.product(
        dict.fromkeys((sure, unsure)),
        dict.fromkeys((tables, near, ())),
        itertools.product(*layouts),
    ):
        parts = [read, *extras]
        for p, run in zip(producers, blocks, strict=True):
            layer = model.get_submodule(p)
            parts.append(_part(p, layer, "weight", run, inputs=False))
            if layer._parameters.get("bias") is not None:
                parts.append(Part(p, "bias", 0, run))
        yield Heads(path, keys, heads // keys, size, reader, tuple(parts), counts)


def _key_heads(heads: int, size: int, widths: list[int]) -> int:
    """Key/value heads: fewer than `heads` where keys and values are projected to less."""
    narrow = {w for w in widths if w < heads * size and w % size == 0 and widths.count(w) > 1}
    if len(narrow) == 1:
        keys = narrow.pop() // size
    elif len(widths) == 1 and heads * size < widths[0] < 3 * heads * size:
        keys = (widths[0] // size - heads) // 2
    else:
        return heads
    return keys if keys and heads % keys == 0 else heads


def _layouts(path: str, width: int, heads: int, keys: int, size: int) -> list[tuple[int, ...]]:
    """How a projection's outputs may be laid out, as the blocks of a `Part`. Raises _NoReading."""
    shared = heads // keys
    known: dict[int, list[tuple[int, ...]]] = {
        heads: [(shared,)],
        keys * size: [(size,)],
        heads * size: [(shared * size,)],
        2 * keys * size: [(size, size), (2 * size,)],
        (heads + 2 * keys) * size: [(shared * size, size, size), ((shared + 2) * size,)],
    }
    if width == heads * size:
        return known[width]
    if width not in known:
        raise _NoReading(f"the {width} channels of {path!r} fit no number of heads of {size}")
    return known[width]


def _tables(model: nn.Module, path: str, heads: int, keys: int) -> tuple[Part, ...]:
    """Tensors with one entry per head along one dimension: position biases, learnt scales.

    Not those of projections.
    """
    return tuple(
        Part(sub, name, list(tensor.shape).index(heads), (heads // keys,))
        for sub, module in model.get_submodule(path).named_modules(prefix=path)
        if not mixes(module)
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
        and tensor.is_floating_point()
        and list(tensor.shape).count(heads) == 1
    )


def _counts(
    module: nn.Module, path: str, heads: int, keys: int, size: int, widths: tuple[str, ...]
) -> tuple[tuple[str, str, int], ...]:
    """Attributes that must follow the number of heads, for this module and those inside it."""
    expected = [(HEAD_COUNTS, heads), (KEY_COUNTS, keys), (widths, heads * size)]
    return tuple(
        (sub, name, value // keys)
        for sub, inner in module.named_modules(prefix=path)
        for names, value in expected
        for name in names
        if type(vars(inner).get(name)) is int and vars(inner)[name] == value
    )


def _check_layer(path: str, layer: nn.Module, shared: Mapping[str, tuple[str, ...]]) -> None:
    if path in shared:
        raise _NoReading(
            f"its layer {path!r} shares a weight with {', '.join(map(repr, shared[path]))}"
        )
    if has_derived_weight(layer):
        raise _NoReading(f"the weight of its layer {path!r} is computed from other parameters")
    plain = isinstance(layer, nn.Linear) or is_transposed_linear(layer)
    conv = isinstance(layer, Convolution) and layer.groups == 1 and not layer.transposed
    if not (plain or conv):
        kind = (
            f"{type(layer).__name__} with groups"
            if getattr(layer, "groups", 1) > 1
            else type(layer).__name__
        )
        raise _NoReading(f"its layer {path!r} is a {kind}, which cannot be cut")


def _part(path: str, layer: nn.Module, name: str, blocks: tuple[int, ...], *, inputs: bool) -> Part:
    return Part(path, name, weight_dim(layer, inputs=inputs), blocks)


def _first(module: nn.Module, names: tuple[str, ...]) -> int | None:
    """The first of these attributes that is a positive integer."""
    return next((v for n in names if type(v := vars(module).get(n)) is int and v > 0), None)
