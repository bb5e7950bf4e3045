"""Which channels must go together, found by tracing, and proved by cutting a copy.

Torch-Pruning's dependency graph (Fang et al. 2023, "DepGraph") says which layers a removed channel touches. It reads
the autograd graph, where slices, pads and hard-coded views look like operations that keep channels in place, so some of
its groups are wrong, and a wrong cut can still have the right shape. No group is believed here before a *trial cut*:
a network whose channels were removed must compute what the network computes when the layers that read those channels
ignore them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.prune import importance
from petra.model.surgery import evaluating, has_derived_weight, output_layers, shared_weights
from petra.tasks.inputs import Inputs, call, named_outputs

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
PER_CHANNEL = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU)
# What a model's code raises when a tensor no longer has the width the code counts on.
BREAKAGE = (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError, AssertionError, ArithmeticError)

SILENT = "its channels have no effect on the output for the example inputs, so a cut cannot be checked"
RETRIES = 3


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can be removed. `root` names the layer whose output channels number them; `units` are the smallest
    sets of them that can go, all of one size; `layers` are the layers whose outputs narrow."""

    root: str
    units: tuple[tuple[int, ...], ...]
    layers: tuple[str, ...]

    @property
    def unit_size(self) -> int:
        return len(self.units[0])


class ChannelGraph:
    """Torch-Pruning's view of `model`, with layers addressed by path. Build it inside `differentiable(model)`."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        """Raises StageRefused when the model cannot be traced."""
        self.model = model
        self.paths: dict[nn.Module, str] = {module: path for path, module in model.named_modules()}
        self.graph = tp.DependencyGraph()
        with evaluating(model):
            try:
                self.graph.build_dependency(model, example, forward_fn=_traced_outputs, verbose=False)
            except BREAKAGE as error:
                raise StageRefused(f"cannot trace how channels depend on each other: {error}") from error

    def roots(self) -> Iterator[tuple[str, Any]]:
        """Root layer and full group of every set of coupled output channels."""
        for group in self.graph.get_all_groups():
            yield self.paths[group[0].dep.target.module], group

    def group(self, root: str, channels: Sequence[int]) -> Any:
        """Everything that goes when `channels` of `root`'s output go."""
        module = self.model.get_submodule(root)
        cut = self.graph.get_pruner_of_module(module).prune_out_channels
        return self.graph.get_pruning_group(module, cut, list(channels))

    def width(self, root: str) -> int:
        return int(self.graph.get_out_channels(self.model.get_submodule(root)))

    def narrows(self, dep: Any) -> bool:
        """Whether the operation removes output channels (norms and depthwise layers: inputs and outputs alike)."""
        return bool(self.graph.is_out_channel_pruning_fn(dep.handler))

    def reads(self, dep: Any) -> bool:
        """Whether the operation only removes inputs that a weighted layer mixes."""
        return isinstance(dep.target.module, WEIGHTED) and not self.narrows(dep)

    def narrowed_layers(self, group: Any) -> tuple[str, ...]:
        modules = [d.target.module for d, _ in group if isinstance(d.target.module, WEIGHTED) and self.narrows(d)]
        return tuple(dict.fromkeys(self.paths[m] for m in modules))


def _outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    return list(named_outputs(call(model, inputs)).values())


def _traced_outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    return [t for t in _outputs(model, inputs) if t.grad_fn is not None]


def find_groups(
    model: nn.Module, example: Inputs, *, generator: torch.Generator
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Groups that are proved safe to cut, and why the output channels of every other weighted layer must stay.

    Leaves `model` untouched. Cost: a copy of the model and a trace, once more for every group that fails its trial,
    and three forward passes per group.
    """
    outputs = output_layers(model, lambda m: _outputs(m, example))
    shared = shared_weights(model)
    groups: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    pending: list[ChannelGroup] = []
    scout = _scout(model, example, generator)
    for root, full in scout.roots():
        layers = scout.narrowed_layers(full)
        reason = _objection(scout, full, outputs, shared)
        units = _units(scout, root, full) if not reason else ()
        if not reason and len({len(u) for u in units}) != 1:
            reason = "its channels are coupled among themselves in sets of different sizes"
        if not reason and len(units) < 2:
            reason = "it has a single channel (or set of coupled channels)"
        if reason:
            refused.update(dict.fromkeys(layers, reason))
        else:
            pending.append(ChannelGroup(root, units, layers))
    position = {path: i for i, (path, _) in enumerate(model.named_modules())}
    pending.sort(key=lambda g: position[g.root])

    fresh = True
    for group in pending:
        reason = _trial(scout, group, example, generator)
        for _ in range(RETRIES):
            if not reason or (fresh and reason != SILENT):
                break  # proved right, or wrong for sure: only silence or the scars of earlier cuts deserve a retry
            scout, fresh = _scout(model, example, generator), True
            reason = _trial(scout, group, example, generator)
        fresh = False
        if reason:
            refused.update(dict.fromkeys(group.layers, reason))
            scout, fresh = _scout(model, example, generator), True
        else:
            groups.append(group)
    cuttable = {path for g in groups for path in g.layers}
    unreached = "the example inputs do not reach it"
    weighted = [path for path, module in model.named_modules() if isinstance(module, WEIGHTED)]
    return groups, {path: refused.get(path, unreached) for path in weighted if path not in cuttable}


def _scout(model: nn.Module, example: Inputs, generator: torch.Generator) -> ChannelGraph:
    """A copy to cut, its weights shaken so that no channel is silent by chance (zero-initialised gains, for one)."""
    scout = copy.deepcopy(model)
    for p in scout.parameters():
        if p.is_floating_point():
            noise = torch.randn(p.shape, generator=generator).to(p)
            p.data = torch.where(p.data == 0, 0.1 * noise, p.data * (1 + 0.1 * noise))
            p.requires_grad_(True)
    return ChannelGraph(scout, example)


def _objection(graph: ChannelGraph, group: Any, outputs: frozenset[str], shared: Mapping[str, tuple[str, ...]]) -> str:
    """Why a group cannot be cut, as far as its members tell; '' when nothing speaks against a trial."""
    for dep, _ in group:
        module = dep.target.module
        if isinstance(module, nn.Parameter):
            continue
        if isinstance(module, tp.ops._OutputOp):
            return "its channels reach the model's output"
        path = graph.paths.get(module)
        if path is None:  # a functional operation
            continue
        if path in outputs and graph.narrows(dep):
            alone = graph.narrowed_layers(group) == (path,)
            return "produces the model's output" if alone else f"coupled with the output layer {path!r}"
        if path in shared:
            return f"coupled with {path!r}, which shares a weight with {', '.join(map(repr, shared[path]))}"
        if has_derived_weight(module):
            return f"coupled with {path!r}, whose weight is computed from other parameters"
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            return f"{type(module).__name__} {path!r} normalises across its channels"
        if not isinstance(module, (*WEIGHTED, *PER_CHANNEL)):
            return f"coupled with {path!r}, a {type(module).__name__}, which cannot be cut"
    return ""


def _units(graph: ChannelGraph, root: str, full: Any) -> tuple[tuple[int, ...], ...]:
    """The smallest sets of channels that can go together, as a partition of the root's channels.

    Grouped convolutions must lose the same channels in every group. Other couplings (halves of a chunk that are
    multiplied, say) show when a single channel drags others along; asking for each channel would cost a graph walk
    per channel, so four are asked first and all only if one of them is coupled. What that could miss, the trial
    cut finds.
    """
    width = graph.width(root)
    parent = list(range(width))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(channels: Iterable[int]) -> None:
        first, *rest = channels
        for other in rest:
            parent[find(other)] = find(first)

    for item in full:
        module = item.dep.target.module
        groups = getattr(module, "groups", 1) if isinstance(module, nn.modules.conv._ConvNd) else 1
        if 1 < groups < module.out_channels and len(item.idxs) % groups == 0:
            per_group = len(item.idxs) // groups
            for start in range(per_group):
                join(item.root_idxs[start::per_group])
    dragged = {i: graph.group(root, [i])[0].idxs for i in {0, 1 % width, width // 2, width - 1}}
    if any(len(channels) > 1 for channels in dragged.values()):
        dragged = {i: graph.group(root, [i])[0].idxs for i in range(width)}
    for channels in dragged.values():
        join(channels)
    sets: dict[int, list[int]] = {}
    for i in range(width):
        sets.setdefault(find(i), []).append(i)
    return tuple(tuple(channels) for channels in sets.values())


def regroup(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """The same groups in a model that has been cut since they were found."""
    found = []
    for g in groups:
        full = graph.group(g.root, range(graph.width(g.root)))
        found.append(ChannelGroup(g.root, _units(graph, g.root, full), g.layers))
    return found


def _trial(scout: ChannelGraph, group: ChannelGroup, example: Inputs, generator: torch.Generator) -> str:
    """Cut a random half of the units out of the scout; why that is wrong, '' when it is right."""
    picked = torch.randperm(len(group.units), generator=generator)[: len(group.units) // 2].tolist()
    return cut(scout, group.root, [i for u in picked for i in group.units[u]], example, must_show=True)


def cut(graph: ChannelGraph, root: str, channels: Sequence[int], example: Inputs, *, must_show: bool = False) -> str:
    """Remove output `channels` of layer `root`, and all that depends on them, from the graph's model.

    Returns '' when the result computes, on `example`, what the model computes with those channels ignored by their
    readers; otherwise what is wrong, and then the model is broken. `must_show`: also object when ignoring the
    channels changes nothing, since then nothing was checked. Cost: three forward passes.
    """
    with evaluating(graph.model), torch.no_grad():
        group = graph.group(root, channels)
        if set(group[0].idxs) != set(channels):
            return "its channels are coupled among themselves in a way that could not be resolved"
        before = _outputs(graph.model, example)
        with _ignored(graph, group):
            expected = _outputs(graph.model, example)
        try:
            group.prune(record_history=False)
            got = _outputs(graph.model, example)
        except BREAKAGE as error:
            return f"without some of its channels the model no longer runs ({_first_line(error)})"
    if [t.shape for t in got] != [t.shape for t in expected]:
        return "removing its channels changes the shape of the output"
    return _disagreement(before, expected, got, must_show=must_show)


def _disagreement(before: list[Tensor], expected: list[Tensor], got: list[Tensor], *, must_show: bool) -> str:
    scale = max(float(t.abs().max()) for t in before)
    precision = max(torch.finfo(t.dtype).eps for t in before if t.is_floating_point())
    noise = 1e3 * precision * scale
    effect = max(float((a.double() - b.double()).abs().max()) for a, b in zip(before, expected, strict=True))
    error = max(float((a.double() - b.double()).abs().max()) for a, b in zip(expected, got, strict=True))
    if not error <= max(noise, 0.01 * effect):  # also when it is not a number
        return "an operation on the way (a slice, a pad, a sum over channels) does not keep its channels in place"
    if must_show and effect <= noise:
        return SILENT
    return ""


@contextmanager
def _ignored(graph: ChannelGraph, group: Any) -> Iterator[None]:
    """Inside, the layers that read the group's channels have zero weights for them."""
    saved: list[tuple[Tensor, Tensor]] = []
    for dep, channels in group:
        module = dep.target.module
        if graph.reads(dep):
            saved.append((module.weight, module.weight.clone()))
            dim = 1 - channel_dim(module)
            per_group = module.weight.shape[dim]  # grouped convolutions read the same inputs in every group
            index = sorted({c % per_group for c in channels})
            module.weight.index_fill_(dim, torch.tensor(index, device=module.weight.device), 0.0)
    try:
        yield
    finally:
        for weight, values in saved:
            weight.copy_(values)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:160] if lines else type(error).__name__


def score(graph: ChannelGraph, group: ChannelGroup, *, kind: str, taylor: Mapping[str, Tensor]) -> Tensor:
    """(number of units,) importance of the group's units, relative to their mean; empty when nothing measures it.

    `kind` is magnitude, bn_scale or taylor; for the last, `taylor` holds the scores (C,) of every weighted layer.
    """
    members: list[tuple[Tensor, Sequence[int]]] = []
    width = graph.width(group.root)
    for item in graph.group(group.root, range(width)):
        module = item.dep.target.module
        if kind == "bn_scale":
            measured = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
            values = importance.bn_scale(module.weight) if measured else None
        elif isinstance(module, WEIGHTED) and graph.narrows(item.dep):
            dim = channel_dim(module)
            values = taylor[graph.paths[module]] if kind == "taylor" else importance.magnitude(module.weight, dim=dim)
        else:
            values = None
        if values is not None:
            members.append((values.detach().cpu()[torch.tensor(item.idxs)], item.root_idxs))
    if not members:
        return torch.empty(0)
    scores = importance.coupled(members, width)
    return torch.stack([scores[list(unit)].mean() for unit in group.units])


def channel_dim(module: nn.Module) -> int:
    """Dimension of the weight that counts output channels."""
    return 1 if getattr(module, "transposed", False) else 0
