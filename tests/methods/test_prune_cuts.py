"""Groups are found, cut and proved: what goes together, what stays, and why."""

from __future__ import annotations

import copy

import pytest
import torch
import zoo
from cut_parts import zoo_model
from pruned_parts import WEIGHTED, build, context_of, task_of
from torch import Tensor, nn

from petra.methods.prune.allocate import lowest
from petra.methods.prune.scores import Ranking, score
from petra.methods.prune.statistics import (
    gather,
)
from petra.methods.prune.structured import StructuredPrune
from petra.model.channels.cut import cut
from petra.model.channels.graph import ChannelGraph
from petra.model.channels.groups import find_groups
from petra.model.surgery import differentiable, output_layers
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import call, named_outputs
from petra.training.loop import predict


def test_a_wrong_cut_with_the_right_shapes_is_caught() -> None:
    model, inputs, _ = build("padded")
    state = copy.deepcopy(model.state_dict())
    with differentiable(model):
        graph = ChannelGraph(model, inputs(2))
        wrong = cut(graph, "b", [0, 5], inputs(2))
    assert "does not keep its channels in place" in wrong
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()), (
        "a wrong cut is undone"
    )
    with differentiable(model):
        graph = ChannelGraph(model, inputs(2))
        graph.remove(graph.group("b", [0, 5]))
    assert model(inputs(2)).shape == (2, 3)  # the shapes alone would not have told


@zoo_model
def test_cut_networks_keep_outputs_inputs_and_ratio(name: str) -> None:
    model, inputs, cuttable = build(name)
    task = task_of(inputs)
    first = {path: m.weight.shape for path, m in model.named_modules() if isinstance(m, WEIGHTED)}
    outputs = output_layers(model, lambda m: named_outputs(call(m, inputs(2))).values())
    stage = StructuredPrune(ratio=0.5, round_to=1, spread="per_layer")
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
    for n in (1, 3):
        expected = {k: t.shape for k, t in named_outputs(call(model, inputs(n))).items()}
        assert {k: t.shape for k, t in named_outputs(call(pruned, inputs(n))).items()} == expected
    for path, shape in first.items():
        now = pruned.get_submodule(path).weight.shape
        out = 1 if isinstance(model.get_submodule(path), nn.ConvTranspose2d) else 0
        assert now[out] == (shape[out] / 2 if path in cuttable else shape[out])
        assert path not in outputs or path not in trace.details["channels"]
    assert trace.details["achieved_ratio"] == 0.5


def test_pruned_network_computes_what_the_masked_one_does() -> None:
    """Distinct BatchNorm gains tell which channels survived; the others are set to zero by hand in
    the original.
    """
    model, inputs, _ = build("residual")
    stage = StructuredPrune(ratio=0.4, round_to=1, spread="per_layer")
    pruned, _ = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 5)))
    masked = copy.deepcopy(model)
    removed = 0
    for conv, bn in (("stem", "bn0"), ("conv1", "bn1"), ("conv2", "bn2")):
        kept = {v.item() for v in pruned.get_submodule(bn).weight}
        gone = [i for i, v in enumerate(model.get_submodule(bn).weight) if v.item() not in kept]
        removed += len(gone)
        with torch.no_grad():
            masked.get_submodule(conv).weight[gone] = 0
            masked.get_submodule(bn).weight[gone] = 0
            masked.get_submodule(bn).bias[gone] = 0
    assert removed > 10
    x = inputs(4)
    assert (model(x) - masked(x)).abs().max().item() > 1e-2  # or the next line would show nothing
    torch.testing.assert_close(pruned(x), masked(x), rtol=1e-4, atol=1e-5)


# Where a channel that is set to zero stays zero until it is read: group root -> layer after which
# to silence it.
SILENCED = {
    "temporal": {"a": "bn", "b": "b"},
    "separable": {"3": "4", "6": "7"},
    "chunked": {"a": "a", "b": "b"},
    "grouped": {"a": "a", "g": "bn", "p": "p"},
    "upsampling": {"a": "a", "t": "t"},
    "group norm": {"a": "gn", "c": "c"},
    "volumes": {"up": "up", "b": "b"},
}


@pytest.mark.parametrize("name", list(SILENCED))
def test_cut_networks_compute_what_silenced_channels_leave(name: str) -> None:
    model, inputs, _ = build(name)
    x = inputs(3)
    groups, _ = find_groups(model, inputs(2), generator=torch.Generator().manual_seed(0))
    pruned, before = copy.deepcopy(model), model(x)
    channel = -1 if isinstance(model, zoo.Gated) else 1
    for g in groups:
        gone = [i for u in g.units[::3] for i in u]
        with differentiable(pruned):
            assert cut(ChannelGraph(pruned, inputs(2)), g.root, gone, inputs(2)) == ""

        def silence(
            module: nn.Module, args: object, output: Tensor, gone: list[int] = gone
        ) -> Tensor:
            return output.index_fill(channel, torch.tensor(gone), 0.0)

        model.get_submodule(SILENCED[name][g.root]).register_forward_hook(silence)
    assert {g.root for g in groups} == set(SILENCED[name])
    assert (model(x) - before).abs().max().item() > 1e-3
    torch.testing.assert_close(pruned(x), model(x), rtol=1e-4, atol=1e-5)


@zoo_model
def test_a_trial_leaves_no_trace(name: str) -> None:
    model, inputs, _ = build(name)
    plain = (bool, int, str, tuple, type(None))
    with differentiable(model):
        graph = ChannelGraph(model, inputs(2))
        before = {
            path: {k: v for k, v in vars(m).items() if isinstance(v, plain)}
            for path, m in model.named_modules()
        }
        parameters = dict(model.named_parameters())
        for root, full, _ in list(graph.roots()):
            items = [(graph.paths.get(d.target.module), d.handler, sorted(i)) for d, i in full]
            outcomes = [
                cut(graph, root, range(graph.width(root) // 2), inputs(2), trial=True)
                for _ in range(2)
            ]
            assert outcomes[0] == outcomes[1]
            again = [
                (graph.paths.get(d.target.module), d.handler, sorted(i))
                for d, i in graph.group(root, range(graph.width(root)))
            ]
            assert again == items
        after = {
            path: {k: v for k, v in vars(m).items() if isinstance(v, plain)}
            for path, m in model.named_modules()
        }
        assert after == before
        assert all(p is parameters[n] for n, p in model.named_parameters())


def test_group_norm_loses_whole_groups() -> None:
    model, inputs, _ = build("group norm")
    stage = StructuredPrune(ratio=0.5, round_to=8, spread="per_layer")
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs)))
    assert trace.details["channels"] == {"a": [24, 16], "c": [12, 8]}
    assert (pruned.gn.num_groups, pruned.gn.num_channels) == (4, 16)
    kept = {tuple(f.flatten().tolist()) for f in pruned.a.weight}
    gone = [i for i, f in enumerate(model.a.weight) if tuple(f.flatten().tolist()) not in kept]
    assert {i // 4 for i in gone} == {gone[0] // 4, gone[-1] // 4}


def test_dicts_and_norms_without_a_module() -> None:
    """Llama's block: the gated widths can go, the stream under the root mean square cannot."""
    torch.manual_seed(0)
    model = zoo.GatedMLP().eval()

    def inputs(n: int) -> dict[str, Tensor]:
        return {"x": zoo.rows(n, 5, 6), "mask": torch.ones(n, 5)}

    task = classification(*((inputs(n), torch.arange(n) % 3) for n in (16, 8, 8)))
    stage = StructuredPrune(ratio=0.4, round_to=8)
    pruned, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
    assert trace.details["channels"] == {"gate": [40, 24], "up": [40, 24]}
    kept = {tuple(row.tolist()) for row in pruned.gate.weight}
    gone = [i for i, row in enumerate(model.gate.weight) if tuple(row.tolist()) not in kept]
    model.down.weight.data[:, gone] = 0
    for got, expected in zip(
        pruned(**inputs(3)).values(), model(**inputs(3)).values(), strict=True
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    "kind", ["magnitude", "bn_scale", "taylor", "hessian", "group_taylor", "group_hessian"]
)
def test_low_scores_cost_less_than_high_scores(
    kind: str, digits_problem: tuple[nn.Module, Task]
) -> None:
    """The direction of the ranking, on a trained network: the same number of channels from either
    end.

    Judged by how far the predictions move, which tells more than accuracies near chance.
    """
    model, task = digits_problem
    groups, _ = find_groups(model, task.example(2), generator=torch.Generator().manual_seed(0))
    before, _ = predict(model, task.val)
    moved = {}
    for sign in (1, -1):
        pruned = copy.deepcopy(model)
        with differentiable(pruned):
            evidence, _ = gather(kind, pruned, task, seed=0, device="cpu")
            graph = ChannelGraph(pruned, task.example(2))
            scores = [sign * score(graph, g, Ranking(kind, evidence=evidence)) for g in groups]
            for g, ranked in zip(groups, scores, strict=True):
                units = lowest(ranked, len(g.units) // 3)
                assert (
                    cut(graph, g.root, [i for u in units for i in g.units[u]], task.example(2))
                    == ""
                )
        moved[sign] = float(
            task.distance().setting(temperature=1.0)(
                {"output": predict(pruned, task.val)[0]}, {"output": before}
            )
        )
    assert moved[1] < moved[-1]
