"""Torch-Pruning's dependency graph (Fang et al. 2023) of a model, layers addressed by path."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.model.channels.breakage import BREAKAGE, breakage_in_words, outputs_of
from petra.model.channels.splits import is_glu, number_glu, number_split
from petra.model.channels.transposed_linear import TransposedLinearPruner
from petra.model.kinds import (
    is_transposed_linear,
    is_weighted,
    width_of,
    widths,
)
from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs

mappings = tp.dependency.index_mapping
NUMBERING = {
    tp.ops.OPTYPE.CONCAT: mappings.update_concat_index_mapping,
    tp.ops.OPTYPE.SPLIT: number_split,
    tp.ops.OPTYPE.RESHAPE: mappings.update_reshape_index_mapping,
    tp.ops.OPTYPE.UNBIND: mappings.update_unbind_index_mapping,
    tp.ops.OPTYPE.EXPAND: mappings.update_expand_index_mapping,
    tp.ops.OPTYPE.SLICE: mappings.update_slice_index_mapping,
}

MOST_STEPS = 4_000_000
"""Channels of operations that one walk looks at: some ten seconds, and less than half a gigabyte.
"""


class MeetingPoint(RuntimeError):
    """Says where all channels become one, so that none of them can go."""


class ChannelGraph:
    """Torch-Pruning's view of `model`, with layers addressed by path.

    Build it inside `differentiable(model)`.
    """

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        """Raises StageRefused when the model cannot be traced."""
        self.model = model
        self.paths: dict[nn.Module, str] = {module: path for path, module in model.named_modules()}
        self.graph = tp.DependencyGraph()
        # whether channels have gone since the graph last numbered those of slices and concats
        self._stale = False
        taught = {type(m): TransposedLinearPruner() for m in self.paths if is_transposed_linear(m)}
        with evaluating(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.graph.build_dependency(
                    model,
                    example,
                    forward_fn=_traced_outputs,
                    customized_pruners=taught,
                    verbose=False,
                )
            except BREAKAGE as error:
                # The steps after tracing are done again here.
                if not hasattr(self.graph, "module2node"):
                    said = breakage_in_words(error)
                    raise StageRefused(
                        f"cannot trace how channels depend on each other: {said}"
                    ) from error
        # No channel has a higher number anywhere, unless a walk has gone astray (and then it might
        # never end).
        self._widest = max([max(widths(m)) for m in model.modules() if is_weighted(m)], default=0)
        self._gates = self._single_channels()
        self._number()

    def _number(self) -> None:
        """Number channels through slices, concatenations and the like.

        Where Torch-Pruning cannot, channels are taken to keep their places: a trial cut finds out
        if they do not.
        """
        for node in self.graph.module2node.values():
            number = number_glu if is_glu(node) else NUMBERING.get(node.type)
            if number is not None:
                with contextlib.suppress(*BREAKAGE):
                    number(self.graph, node)
        self._stale = False

    def roots(self) -> Iterator[tuple[str, Any, str]]:
        """Root layer, full group, and '' for every set of coupled output channels; where the
        couplings of a layer cannot be followed, or it has one channel, its path, None and the
        reason."""
        visited: set[nn.Module] = set()
        for module in [m for m in self.graph.module2node if is_weighted(m)]:
            if module in visited:
                continue
            path = self.paths[module]
            if self.width(path) == 1:
                yield path, None, "it has a single channel"
                continue
            try:
                group = self.group(path, range(self.width(path)))
            except MeetingPoint as error:
                yield path, None, str(error)
                continue
            except BREAKAGE as error:
                yield path, None, f"its couplings cannot be followed ({breakage_in_words(error)})"
                continue
            visited.update(dep.target.module for dep, _ in group if self.narrows(dep))
            yield path, group, ""

    def group(self, root: str, channels: Sequence[int]) -> Any:
        """Everything that goes when `channels` of `root`'s output go, as a Torch-Pruning group."""
        group = tp.dependency.Group()
        group._DG = self.graph
        for dep, owners in self._walk(root, channels)[0]:
            group.add_dep(dep, list(owners))
            group[-1].root_idxs = list(owners.values())
        return group

    def couplings(self, root: str) -> list[tuple[int, int]]:
        """Pairs of `root`'s output channels that go together; sets of more are chains of pairs."""
        return self._walk(root, range(self.width(root)))[1]

    def _walk(
        self, root: str, channels: Sequence[int]
    ) -> tuple[list[tuple[Any, dict[int, int]]], list[tuple[int, int]]]:
        """Operations that removing `channels` of `root` brings about, the removal itself first,
        each with the root's channel that takes each of its own along; and the pairs of root
        channels that meet in one.

        Torch-Pruning's own walk, except that it numbers the graph once, and follows a channel of
        an operation once: from there on all that meet in it go the same way. Cost: linear in
        operations times channels, where following each is quadratic once all meet, and at most
        `MOST_STEPS`. Raises one of BREAKAGE.
        """
        if self._stale:
            self._number()
        index = tp._helpers._HybridIndex
        module = self.model.get_submodule(root)
        node = self.graph.module2node[module]
        remove = self.graph.get_pruner_of_module(module).prune_out_channels
        first = tp.dependency.Dependency(remove, remove, source=node, target=node)
        found: dict[Any, tuple[Any, dict[int, int]]] = {}
        met: dict[tuple[int, int], None] = {}
        todo = [(first, [index(idx=c, root_idx=c) for c in channels])]
        steps, astray = 0, False
        while todo:
            dep, reached = todo.pop()
            if dep is not first and self._is_gate_of_all(dep):
                continue
            _, owners = found.setdefault((dep.target, dep.handler), (dep, {}))
            new = [i for i in reached if i.idx not in owners]
            for i in reached:
                owner = owners.setdefault(i.idx, i.root_idx)
                if owner != i.root_idx:
                    met[owner, i.root_idx] = None
            steps += len(reached)
            if steps > MOST_STEPS:
                raise RuntimeError(f"they take more than {MOST_STEPS:,} steps to follow")
            for following in dep.target.dependencies if new else ():
                if following.is_triggered_by(dep.handler):
                    mapped, lost = self._mapped(new, following.index_mapping)
                    astray |= lost
                    todo += [(following, mapped)] if mapped else []
        if astray:
            raise RuntimeError("a slice or concatenation numbers its channels in an unknown way")
        return list(found.values()), list(met)

    def _mapped(self, channels: list[Any], mappings: Sequence[Any]) -> tuple[list[Any], bool]:
        """Channels as the next operation numbers them, and whether a number is impossible: one by
        one, because a wrong mapping makes a thousand of each."""
        present = [mapping for mapping in mappings if mapping is not None]
        if not present:
            return channels, False
        result: list[Any] = []
        for channel in channels:
            mapped = [channel]
            for mapping in present:
                mapped = mapping(mapped)
            if any(not 0 <= i.idx < self._widest for i in mapped):
                return result, True
            result += mapped
        return result, False

    def _is_gate_of_all(self, dep: Any) -> bool:
        """Whether the operation belongs to a layer with one output channel, which is spread over
        all channels here: it couples none of them, and stays.

        Raises MeetingPoint where the operation would take the only input of a layer.
        """
        if dep.target in self._gates and self.narrows(dep):
            return True
        module = dep.target.module
        if is_weighted(module) and not self.narrows(dep) and widths(module)[0] == 1:
            path = self.paths[module]
            raise MeetingPoint(f"all its channels meet in the one input channel of {path!r}")
        return False

    def _single_channels(self) -> set[Any]:
        """Nodes of layers with one output channel, and of what is made of it alone."""
        nodes = self.graph.module2node.values()
        todo = [n for n in nodes if is_weighted(n.module) and width_of(n.module) == 1]
        found = set(todo)
        while todo:
            for node in todo.pop().outputs:
                joins = node.type in (tp.ops.OPTYPE.CONCAT, tp.ops.OPTYPE.CUSTOMIZED)
                if node in found or joins or is_weighted(node.module):
                    continue
                if found.issuperset(node.inputs):
                    found.add(node)
                    todo.append(node)
        return found

    def remove(self, group: Any) -> Callable[[], None]:
        """Take a group's channels out; returns a function that puts everything back.

        Raises one of BREAKAGE, with the model as it was, when the channels cannot go.
        """
        undo = self._restorer(group)
        norms = [d.target.module for d, _ in group if isinstance(d.target.module, nn.GroupNorm)]
        sizes = [norm.num_channels // norm.num_groups for norm in norms]
        try:
            group.prune(record_history=False)
            for norm, size in zip(norms, sizes, strict=True):
                norm.num_groups, rest = divmod(norm.num_channels, size)
                if rest:
                    raise ValueError(f"GroupNorm {self.paths[norm]!r} would lose part of a group")
        except BREAKAGE:
            undo()
            raise
        self._stale = True
        return undo

    def _restorer(self, group: Any) -> Callable[[], None]:
        # Removal assigns new tensors and numbers to modules and to the graph's nodes; nothing is
        # edited in place but the lists of sizes of its concatenations and splits.
        modules = {
            d.target.module for d, _ in group if not isinstance(d.target.module, nn.Parameter)
        }
        states = [
            (m, {k: v.copy() if isinstance(v, dict | list) else v for k, v in vars(m).items()})
            for m in modules
        ]
        nodes = [
            (d.target, d.target.module)
            for d, _ in group
            if isinstance(d.target.module, nn.Parameter)
        ]
        names, lookup, stale = self.graph._param_to_name, self.graph.module2node, self._stale
        self.graph._param_to_name, self.graph.module2node = dict(names), dict(lookup)

        def undo() -> None:
            for module, state in states:
                vars(module).clear()
                vars(module).update(state)
            for node, parameter in nodes:
                owner, _, name = names[parameter].rpartition(".")
                setattr(self.model.get_submodule(owner), name, parameter)
                node.module = parameter
            self.graph._param_to_name, self.graph.module2node, self._stale = names, lookup, stale

        return undo

    def owner_of(self, parameter: nn.Parameter) -> str:
        """Path of the module that holds a parameter which is no layer's."""
        return str(self.graph._param_to_name[parameter]).rpartition(".")[0]

    def width(self, root: str) -> int:
        return width_of(self.model.get_submodule(root))

    def narrows(self, dep: Any) -> bool:
        """Whether it removes output channels (of norms and depthwise layers, both)."""
        return bool(self.graph.is_out_channel_pruning_fn(dep.handler))

    def reads(self, dep: Any) -> bool:
        """Whether the operation only removes inputs that a weighted layer mixes."""
        return is_weighted(dep.target.module) and not self.narrows(dep)

    def narrowed_layers(self, group: Any) -> tuple[str, ...]:
        modules = [
            d.target.module for d, _ in group if is_weighted(d.target.module) and self.narrows(d)
        ]
        return tuple(dict.fromkeys(self.paths[m] for m in modules))


def _traced_outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    return [t for t in outputs_of(model, inputs) if t.grad_fn is not None]
