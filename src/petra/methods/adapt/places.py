"""Where in a model adapters belong: of every block its attentions and its feed-forward network.

Nobody agrees on how blocks are written, so places are read off one forward pass: the attention
function that Hugging Face's models look up tells queries, keys and values apart, and autograd's
graph which layer made them, which reads what they give, and which makes the block's output. Where a
model has attention code of its own, the graph says which layers attention was made of, and their
names which is which.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from petra.model.attention.find import ATTENDS, upstream
from petra.model.kinds import is_transposed_linear, mixes
from petra.model.layers.lora import sizes
from petra.model.surgery import differentiable, evaluating, is_under, tensors_in
from petra.tasks.inputs import Inputs, call

_INPUT, _GIVEN = "the block's input", "what the attention gave"


@dataclass(frozen=True)
class Attending:
    """One attention of a block: the layers that make queries, keys and values (one layer, where
    they are made together) and the one that reads the result. `path` is the module that looks the
    attention function up, with its number of key heads and their size; '' and zeros where attention
    is the model's own code.
    """

    query: str
    key: str
    value: str
    output: str
    path: str = ""
    heads: int = 0
    size: int = 0


@dataclass(frozen=True)
class Places:
    """Of one block: its attentions; the layers that read the input of its feed-forward network, and
    the `last` one, which makes its output, of that `width`; all modules with a bias.
    """

    block: str
    attentions: tuple[Attending, ...]
    first: tuple[str, ...]
    last: str
    width: int
    biased: tuple[str, ...]


def find_places(
    model: nn.Module, example: Inputs, blocks: Iterable[str]
) -> tuple[dict[str, Places], dict[str, str]]:
    """The places of every one of the `blocks`, by path, and why others have none. Cost: one forward
    pass; the model, which is on the device of `example`, ends as it began.
    """
    wanted = tuple(blocks)
    seen = _look(model, example, wanted)
    found: dict[str, Places] = {}
    refused: dict[str, str] = {}
    for path in wanted:
        try:
            found[path] = _places(model, path, seen)
        except _NoPlace as reason:
            refused[path] = str(reason)
    return found, refused


class _NoPlace(Exception):
    """Why a block's places cannot be made out."""


@dataclass
class _Call:
    """A call of the attention function."""

    path: str
    made_of: tuple[Any, Any, Any]
    gave: Any
    heads: int
    size: int


@dataclass
class _Seen:
    """What one pass showed. Nodes are those of autograd's graph: `made` by layers, by path; `taken`
    by each layer; of every block those of its first call.
    """

    layers: Mapping[str, nn.Module]
    made: dict[Any, str] = field(default_factory=dict)
    taken: dict[str, list[Any]] = field(default_factory=dict)
    entered: dict[str, list[Any]] = field(default_factory=dict)
    left: dict[str, list[Any]] = field(default_factory=dict)
    calls: list[_Call] = field(default_factory=list)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Layers that compute products, by path: those of torch and Hugging Face, and of petra's own
    that stand for one. What lies inside of another is a part of it.
    """
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        ours = type(module).__module__.startswith("petra.") and hasattr(module, "in_features")
        if path and (mixes(module) or ours) and not is_under(path, frozenset(found)):
            found[path] = module
    return found


def _look(model: nn.Module, example: Inputs, blocks: tuple[str, ...]) -> _Seen:
    seen = _Seen(layers_of(model))
    paths = {id(module): path for path, module in model.named_modules()}
    hooks: list[Any] = []
    for path, layer in seen.layers.items():
        hooks.append(layer.register_forward_hook(_noting(seen, path), with_kwargs=True))
    for path in blocks:
        try:
            block = model.get_submodule(path)
        except AttributeError:
            continue
        hooks.append(block.register_forward_hook(_bounding(seen, path), with_kwargs=True))
    try:
        with evaluating(model), differentiable(model), _watched_attention(seen, paths):
            call(model, example)
    finally:
        for handle in hooks:
            handle.remove()
    return seen


def _nodes(values: object) -> list[Any]:
    return [t.grad_fn for t in tensors_in(values) if t.grad_fn is not None]


def _noting(seen: _Seen, path: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen.taken.setdefault(path, []).extend(_nodes((args, kwargs)))
        seen.made.update((node, path) for node in _nodes(output))

    return hook


def _bounding(seen: _Seen, path: str) -> Callable[..., None]:
    """Of a block, the nodes of its first input and its first result at its first call."""

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if path not in seen.left:
            seen.entered[path] = _nodes([*tensors_in((args, kwargs))][:1])
            seen.left[path] = _nodes([*tensors_in(output)][:1])

    return hook


@contextmanager
def _watched_attention(seen: _Seen, paths: Mapping[int, str]) -> Iterator[None]:
    """Inside, calls of attention functions that are looked up in transformers' registry are
    noted.
    """
    library: Any = sys.modules.get("transformers.modeling_utils")
    if library is None:  # then no model of it is here
        yield
        return
    registry = library.AttentionInterface
    own = registry.get_interface

    def get_interface(self: Any, name: str, default: Any) -> Callable[..., Any]:
        function = own(self, name, default)

        def watched(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any,
                    **kwargs: Any) -> Any:  # fmt: skip
            result = function(module, query, key, value, *args, **kwargs)
            nodes = (query.grad_fn, key.grad_fn, value.grad_fn)
            path = paths.get(id(module), "")
            heads, size = key.shape[1], key.shape[3]
            seen.calls.append(_Call(path, nodes, result[0].grad_fn, heads, size))
            return result

        return watched

    registry.get_interface = get_interface
    try:
        yield
    finally:
        registry.get_interface = own


def _places(model: nn.Module, block: str, seen: _Seen) -> Places:
    """Raises _NoPlace."""
    if block not in seen.left:
        raise _NoPlace("it is not called, or no longer there")
    inside = {p: m for p, m in seen.layers.items() if is_under(p, frozenset({block}))}
    if not inside:
        raise _NoPlace("it has no layers with weights: an earlier stage has left it out")
    attentions = _looked_up(block, inside, seen) or _written_out(block, inside, seen)
    if not attentions:
        raise _NoPlace("no attention was seen in it")
    made = dict(seen.made)
    made.update(dict.fromkeys(seen.entered[block], _INPUT))
    ends, _ = upstream(seen.left[block], made)
    ends = (ends & inside.keys()) - {a.output for a in attentions}
    if len(ends) != 1:
        raise _NoPlace(
            "which layer ends its feed-forward network cannot be followed"
            + (f": it may be any of {', '.join(sorted(ends))}" if ends else "")
        )
    (last,) = ends
    sources, _ = upstream(seen.taken[last], seen.made)
    first = tuple(sorted(sources & inside.keys()))
    for path in (last, *first, *(p for a in attentions for p in _layers(a))):
        _check_linear(path, inside[path])
    width = sizes(inside[last])[1]
    return Places(block, attentions, first, last, width, _biased(model, block, inside))


def _layers(attending: Attending) -> tuple[str, ...]:
    return attending.query, attending.key, attending.value, attending.output


def _check_linear(path: str, layer: nn.Module) -> None:
    if not (hasattr(layer, "in_features") or is_transposed_linear(layer)):
        raise _NoPlace(f"its layer {path!r} is a {type(layer).__name__}, and not a linear one")


def _looked_up(block: str, inside: Mapping[str, nn.Module], seen: _Seen) -> tuple[Attending, ...]:
    """The attentions of a block whose functions were looked up, each once."""
    found: dict[str, Attending] = {}
    for called in seen.calls:
        if not is_under(called.path, frozenset({block})) or called.path in found:
            continue
        made: list[str] = []
        for node in called.made_of:
            layers, _ = upstream([node] if node is not None else [], seen.made)
            made += sorted(layers & inside.keys())[:1]
        stops = {**seen.made, called.gave: _GIVEN}
        readers = [p for p in inside if _GIVEN in upstream(seen.taken.get(p, []), stops)[0]]
        if len(made) != 3 or not readers:
            raise _NoPlace(f"the layers around the attention of {called.path!r} cannot be followed")
        query, key, value = made
        found[called.path] = Attending(
            query, key, value, readers[0], called.path, called.heads, called.size
        )
    return tuple(found.values())


def _written_out(block: str, inside: Mapping[str, nn.Module], seen: _Seen) -> tuple[Attending, ...]:
    """The attentions of a block in the model's own code: layers that read what a softmax gave."""
    found = []
    for path in inside:
        sources, between = upstream(seen.taken.get(path, []), seen.made)
        if not any(ATTENDS.search(node.name()) for node in between):
            continue
        roles = _roles(sorted(sources & inside.keys()))
        if roles is None:
            raise _NoPlace(
                f"which of the layers that {path!r} reads from make queries, keys and values"
                " cannot be told"
            )
        found.append(Attending(*roles, path))
    return tuple(found)


def _roles(paths: list[str]) -> tuple[str, str, str] | None:
    """Which layers make queries, keys and values, by the first letter of their names; the only
    one makes all three.
    """
    if len(paths) == 1:
        return paths[0], paths[0], paths[0]
    found = []
    for letter in "qkv":
        named = [p for p in paths if p.rpartition(".")[2].lower().startswith(letter)]
        if len(named) != 1:
            return None
        found += named
    return found[0], found[1], found[2]


def _biased(model: nn.Module, block: str, inside: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Modules of a block that add a bias of their own."""
    parts, found = frozenset(inside), []
    for path, module in model.get_submodule(block).named_modules(prefix=block):
        bias: object = getattr(module, "bias", None)
        own = isinstance(bias, nn.Parameter) and bias.is_floating_point()
        if own and (path in inside or not is_under(path, parts)):
            found.append(path)
    return tuple(found)
