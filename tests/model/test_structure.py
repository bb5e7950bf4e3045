"""A model described and rebuilt is the same model: modules, bits, layout, sharing; or it is
refused.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_pruning as tp
from described_models import (
    CHANGES,
    Net,
    changed,
    double,
    set_attributes,
    tie,
)
from safetensors.torch import load, save
from torch import Tensor, nn

from petra.core.errors import ArtifactError
from petra.model.description.differences import NotDescribable, describe, rebuild, weights
from petra.model.description.state_hash import state_hash
from petra.model.layers.adapters import Holding

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def through_files(model: nn.Module, original: nn.Module) -> nn.Module:
    """Described and rebuilt by way of JSON text and safetensors bytes, the original untouched."""
    before = state_hash(original)
    description = json.loads(json.dumps(describe(model, original)))
    rebuilt = rebuild(original, description, load(save(weights(model, description))))
    assert state_hash(original) == before
    return rebuilt


def assert_same(rebuilt: nn.Module, model: nn.Module, x: Tensor = X) -> None:
    assert state_hash(rebuilt) == state_hash(model)
    assert str(rebuilt) == str(model)
    assert [type(m) for m in rebuilt.modules()] == [type(m) for m in model.modules()]
    assert [m.training for m in rebuilt.modules()] == [m.training for m in model.modules()]
    ours = dict(
        [
            *rebuilt.named_parameters(remove_duplicate=False),
            *rebuilt.named_buffers(remove_duplicate=False),
        ]
    )
    theirs = dict(
        [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    )
    assert list(ours) == list(theirs)
    assert list(dict(rebuilt.named_parameters())) == list(dict(model.named_parameters())), (
        "and shared alike"
    )
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
        assert ours[name].stride() == tensor.stride(), name
        assert ours[name].requires_grad == tensor.requires_grad, name
        assert type(ours[name]) is type(tensor), name
        assert ours[name].data_ptr() != tensor.data_ptr(), name
    assert torch.equal(rebuilt(x), model(x))
    # It trains the same way, too: one step, dropout and batch statistics included.
    for m in (rebuilt, model):
        torch.manual_seed(3)
        optimizer = torch.optim.SGD((p for p in m.parameters() if p.requires_grad), lr=0.1)
        optimizer.zero_grad()
        m(x).square().mean().backward()
        optimizer.step()
    assert torch.equal(rebuilt(x), model(x))


# -- what comes back -------------------------------------------------------------------------------


def test_an_unchanged_and_a_retrained_model(original: Net) -> None:
    assert describe(copy.deepcopy(original), original)["modules"] == []
    assert_same(through_files(copy.deepcopy(original), original), copy.deepcopy(original))
    model = changed(original)
    assert describe(model, original)["modules"] == []
    assert_same(through_files(model, original), model)


def test_references_inside_the_model_stay_inside_it(original: Net) -> None:
    rebuilt = through_files(changed(original), original)
    assert isinstance(rebuilt, Net)
    assert rebuilt.layers[0] is rebuilt.head
    assert rebuilt.head.weight is rebuilt.embed.weight is rebuilt.weights[0]
    assert rebuilt.again is rebuilt.shared
    assert rebuilt.rnn._flat_weights[0] is rebuilt.rnn.weight_ih_l0


@pytest.mark.parametrize("ratio", [0.25, 0.6])
def test_structured_pruning(original: Net, ratio: float) -> None:
    model = changed(original)
    pruner = tp.pruner.MagnitudePruner(
        model.blocks, torch.randn(1, 8, 4, 4), importance=tp.importance.MagnitudeImportance(),
        pruning_ratio=ratio, ignored_layers=[model.blocks[1].conv2],
    )  # fmt: skip
    pruner.step()
    assert model.blocks[0].conv1.out_channels < 8
    assert_same(through_files(model, original), model)


def test_pruning_linear_layers_and_norms() -> None:
    torch.manual_seed(0)
    original = nn.Sequential(
        nn.Linear(6, 12), nn.LayerNorm(12), nn.GELU(), nn.Dropout(0.3), nn.Linear(12, 4)
    )
    model = changed(original)
    graph = tp.DependencyGraph().build_dependency(model, torch.randn(2, 6))
    graph.get_pruning_group(model[0], tp.prune_linear_out_channels, [1, 5, 6]).prune()
    assert model[1].normalized_shape == (9,)
    assert_same(through_files(model, original), model, torch.randn(3, 6))


def factorise(conv: nn.Conv2d, rank: int) -> nn.Sequential:
    """conv = 1x1 after k x k, by the SVD of the weight unfolded by output channel."""
    u, s, vh = torch.linalg.svd(conv.weight.detach().flatten(1), full_matrices=False)
    first = nn.Conv2d(
        conv.in_channels, rank, conv.kernel_size, conv.stride, conv.padding, bias=False
    )
    second = nn.Conv2d(rank, conv.out_channels, 1, bias=conv.bias is not None)
    with torch.no_grad():
        first.weight.copy_((s[:rank, None] * vh[:rank]).reshape(first.weight.shape))
        second.weight.copy_(u[:, :rank, None, None])
        if conv.bias is not None:
            second.bias.copy_(conv.bias)
    return nn.Sequential(first, second)


def test_low_rank_factors(original: Net) -> None:
    model = changed(original)
    for block in model.blocks:
        block.conv1, block.conv2 = (
            factorise(block.conv1, 3).eval(),
            factorise(block.conv2, 4).eval(),
        )
    assert_same(through_files(model, original), model)


def test_factors_after_pruning_after_training_mode(original: Net) -> None:
    model = changed(original)
    model.train()
    graph = tp.DependencyGraph().build_dependency(model.blocks, torch.randn(1, 8, 4, 4))
    graph.get_pruning_group(model.blocks[0].conv1, tp.prune_conv_out_channels, [0, 3]).prune()
    model.blocks[0].conv1 = factorise(model.blocks[0].conv1, 2)
    assert_same(through_files(model, original), model)


@pytest.mark.parametrize("change", CHANGES)
def test_other_changes(original: Net, change: Callable[[Any], None]) -> None:
    model = changed(original)
    change(model)
    rebuilt = through_files(model, original)
    if change is set_attributes:
        assert repr(rebuilt.blocks[1].names) == repr(model.blocks[1].names)
        assert repr([b.scale for b in rebuilt.blocks]) == "[inf, -0.0]"
        assert (rebuilt.new, rebuilt.dtype, hasattr(rebuilt.blocks[0], "names")) == (
            None,
            torch.bfloat16,
            False,
        )
        for m in (model, rebuilt):
            m.blocks[0].scale = 1.0
    if change is tie:
        assert rebuilt.blocks[0].bn1.running_mean is rebuilt.blocks[1].bn1.running_mean
    if change in (double, set_attributes):
        rebuilt.blocks[0].bn1.running_mean, model.blocks[0].bn1.running_mean = (
            torch.zeros(8),
            torch.zeros(8),
        )
    assert_same(rebuilt, model)


def test_a_root_that_is_replaced() -> None:
    original = nn.Linear(4, 3)
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 3))
    assert_same(through_files(model, original), model, torch.randn(2, 4))


class Foreign(nn.Module):
    """Of a third party, with an attribute that no file can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.config = nn.Linear(4, 4), object()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_what_took_the_place_of_a_module_holds_it() -> None:
    original = nn.Sequential(Foreign(), nn.Linear(4, 4))
    model = copy.deepcopy(original)
    model[0].config = original[0].config  # as copies that petra makes have it
    model[0].inner = Holding(Holding(model[0].inner))
    model[0] = Holding(Holding(model[0]))
    rebuilt = through_files(model, original)
    assert [type(m) for m in rebuilt.modules()] == [type(m) for m in model.modules()]
    assert type(rebuilt.get_submodule("0.layer.layer").config) is object
    assert state_hash(rebuilt) == state_hash(model)


def test_a_module_that_was_moved_elsewhere_is_still_refused() -> None:
    original = nn.Sequential(Foreign(), nn.Linear(4, 4))
    model = copy.deepcopy(original)
    model[1], model[0] = model[0], nn.Identity()
    with pytest.raises(NotDescribable, match=r"layer '1': attribute 'config'"):
        describe(model, original)


def test_what_did_not_change_is_not_written(original: Net) -> None:
    model = copy.deepcopy(original)
    name, changed_one = next(iter(model.named_parameters()))
    changed_one.data += 1
    description = describe(model, original)
    assert list(weights(model, description)) == [name, "embed.weight"], "which the head shares"
    assert_same(rebuild(original, description, weights(model)), model)
    changed_one.data -= 1
    with pytest.raises(ArtifactError, match="do not fit the model"):
        rebuild(original, description, {})


def test_bits_are_compared_not_values() -> None:
    original, model = nn.Linear(2, 2), nn.Linear(2, 2)
    original.weight.data.zero_()
    model.load_state_dict(original.state_dict())
    model.weight.data.mul_(-1)  # -0.0
    assert list(weights(model, describe(model, original))) == ["weight"]
    assert_same(through_files(model, original), model, torch.randn(1, 2))


def test_tensors_that_were_tied_are_written(original: Net) -> None:
    tie(original)
    model = copy.deepcopy(original)
    model.blocks[1].bn1.running_mean = model.blocks[1].bn1.running_mean.clone()
    model.blocks[0].bn1.running_mean.add_(1)
    assert_same(through_files(model, original), model)
