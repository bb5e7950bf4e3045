"""A model described and rebuilt is the same model: modules, bits, layout, sharing; or it is
refused.
"""

from __future__ import annotations

import copy
import functools
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_pruning as tp
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from petra.core.errors import ArtifactError, PetraError
from petra.model.description.differences import NotDescribable, describe, rebuild, weights
from petra.model.description.state_hash import state_hash


class Block(nn.Module):
    """A residual block as users write them: functional calls, plain attributes, a buffer that is
    not saved.
    """

    def __init__(self, channels: int, *, scale: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.activation = torch.relu
        self.cut = functools.partial(torch.clamp, min=0.0)
        self.scale = scale
        self.names = {"kind": "block", "sizes": (channels, [1, 2])}
        self.register_buffer("gain", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        return self.activation(x + self.scale * self.gain * self.conv2(y))


class Net(nn.Module):
    """Small enough to run, odd enough to go wrong: shared layers, tied weights, a transposed
    convolution, a GRU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.norm = nn.GroupNorm(2, 6)
        self.shared = nn.Hardswish()
        self.again = self.shared
        self.rnn = nn.GRU(6, 5, batch_first=True)
        self.embed = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.layers = [self.head, "not registered"]
        self.weights = [self.embed.weight]
        self.owner = weakref.ref(self)
        self.extra: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.norm(self.up(self.blocks(self.stem(x)))))
        x, _ = self.rnn(x.mean(-1).transpose(1, 2))
        return self.layers[0](x[:, -1])


@pytest.fixture
def original() -> Net:
    torch.manual_seed(0)
    return Net().eval()


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def through_files(model: nn.Module, original: nn.Module) -> nn.Module:
    """Described and rebuilt by way of JSON text and safetensors bytes, the original untouched."""
    before = state_hash(original)
    description = json.loads(json.dumps(describe(model, original)))
    rebuilt = rebuild(original, description, load(save(weights(model))))
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


def changed(original: nn.Module) -> nn.Module:
    """A copy with other weights."""
    model = copy.deepcopy(original)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
        for b in model.buffers():
            if b.is_floating_point():
                b += torch.rand(b.shape, generator=generator)
    return model


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


def set_attributes(model: Any) -> None:
    model.blocks[0].scale = float("inf")
    model.blocks[1].scale = -0.0
    model.blocks[1].names = {
        "kind": "other",
        "sizes": (1, [2, (3,)]),
        "set": {2, 1},
        "size": torch.Size([1, 2]),
    }
    model.new, model.dtype = None, torch.bfloat16
    del model.blocks[0].names


def replace_layers(model: Any) -> None:
    model.blocks[0].bn1 = nn.Identity()
    model.shared = nn.ReLU6()  # no longer what `again` is
    model.norm = nn.BatchNorm2d(6, momentum=None).eval()
    model.stem = nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 8, 3, padding="same", padding_mode="circular")
    )


def drop_a_layer(model: Any) -> None:
    model.blocks = nn.Sequential(model.blocks[1], nn.PReLU())


def one_block_twice(model: Any) -> None:
    model.blocks[0] = model.blocks[1]


def untie(model: Any) -> None:
    model.head.weight = nn.Parameter(model.head.weight.detach() * 2)
    model.again = nn.Hardswish()


def tie(model: Any) -> None:
    model.blocks[0].conv2.bias = model.blocks[1].conv2.bias
    model.blocks[0].bn1.running_mean = model.blocks[1].bn1.running_mean


def freeze(model: Any) -> None:
    model.stem.requires_grad_(False)
    model.embed.requires_grad_(False)


def add_and_remove_tensors(model: Any) -> None:
    model.stem.bias = None
    model.blocks[0].conv1.bias = nn.Parameter(torch.randn(8))
    model.head.bias = nn.Parameter(torch.zeros(7))
    model.register_buffer("mask", torch.tensor([True, False]))
    del model.blocks[1].gain
    model.blocks[1].register_buffer("gain", torch.tensor(2.0))


def channels_last(model: Any) -> None:
    model.to(memory_format=torch.channels_last)


def double(model: Any) -> None:
    model.blocks[0].bn1.running_mean = model.blocks[0].bn1.running_mean.double()
    model.embed.weight.data = model.embed.weight.data.t().contiguous().t()


def reorder(model: Any) -> None:
    model.blocks = nn.Sequential(*reversed(list(model.blocks)))


def partly_train(model: Any) -> None:
    model.blocks[0].bn1.train()


CHANGES: list[Callable[[Any], None]] = [
    set_attributes, replace_layers, drop_a_layer, one_block_twice, untie, tie, freeze,
    add_and_remove_tensors, channels_last, double, reorder, partly_train,
]  # fmt: skip


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


# -- what is refused -------------------------------------------------------------------------------


def foreign_class(model: Any) -> None:
    class Mine(nn.Linear):
        pass

    model.head = Mine(5, 7)


def closure(model: Any) -> None:
    model.blocks[0].activation = lambda x: torch.relu(x)


def other_partial(model: Any) -> None:
    model.blocks[0].cut = functools.partial(torch.clamp, min=1.0)


def hook(model: Any) -> None:
    model.stem.register_forward_hook(lambda m, i, o: 2 * o)


def parametrization(model: Any) -> None:
    parametrize.register_parametrization(model.stem, "weight", nn.Softplus())


def unregistered_tensor(model: Any) -> None:
    model.extra = torch.ones(3)


def other_reference(model: Any) -> None:
    model.layers = [nn.Linear(5, 7)]


def new_recurrent_layer(model: Any) -> None:
    model.rnn = nn.LSTM(6, 5, batch_first=True)


def overlapping_memory(model: Any) -> None:
    both = torch.randn(16)
    model.blocks[0].bn1.weight.data, model.blocks[0].bn1.bias.data = both[:8], both[4:12]


def sparse_buffer(model: Any) -> None:
    model.register_buffer("mask", torch.eye(3).to_sparse())


def graph_module(model: Any) -> None:
    model.blocks = torch.fx.symbolic_trace(model.blocks)


REFUSED: list[tuple[Callable[[Any], None], str]] = [
    (foreign_class, "layer 'head'.*Mine"),
    (closure, "layer 'blocks.0': attribute 'activation'"),
    (other_partial, "layer 'blocks.0': attribute 'cut'"),
    (hook, "layer 'stem': attribute '_forward_hooks"),
    (parametrization, "layer 'stem'"),
    (unregistered_tensor, "attribute 'extra'"),
    (other_reference, "attribute 'layers'"),
    (new_recurrent_layer, "layer 'rnn'"),
    (overlapping_memory, "blocks.0.bn1"),
    (sparse_buffer, "mask"),
    (graph_module, "layer 'blocks'"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_described(
    original: Net, change: Callable[[Any], None], message: str
) -> None:
    model = changed(original)
    change(model)
    with pytest.raises(NotDescribable, match=message) as caught:
        describe(model, original)
    assert isinstance(caught.value, PetraError)


def test_tensors_of_another_model_are_refused(original: Net) -> None:
    description, state = describe(original, original), weights(original)
    missing = {k: v for k, v in state.items() if k != "stem.weight"}
    for wrong in (missing, {**state, "surplus": torch.zeros(1)}):
        with pytest.raises(ArtifactError, match=r"stem.weight|surplus"):
            rebuild(original, description, wrong)


def test_a_description_cannot_import_what_it_likes(original: Net) -> None:
    description = describe(original, original)
    for name in (
        "os:PathLike",
        "subprocess:Popen",
        "torch.nn.modules.linear:Absent",
        "petra.core.errors:PetraError",
    ):
        evil = {**description, "modules": [{"path": "head", "class": name}]}
        with pytest.raises(NotDescribable, match="class"):
            rebuild(original, evil, weights(original))


# -- fingerprints ----------------------------------------------------------------------------------

NO_CHANGE = (freeze, channels_last, partly_train)  # of what the model is
BY_TYPE_ONLY = (other_partial,)  # opaque values of one type and length look alike


@pytest.mark.parametrize("change", CHANGES + [c for c, _ in REFUSED])
def test_fingerprints_see_changes(original: Net, change: Callable[[Any], None]) -> None:
    model = copy.deepcopy(original)
    change(model)
    unseen = change in NO_CHANGE + BY_TYPE_ONLY
    assert (state_hash(model) == state_hash(original)) == unseen


def test_fingerprints_see_one_bit(original: Net) -> None:
    model = copy.deepcopy(original)
    assert state_hash(model) == state_hash(original)
    with torch.no_grad():
        model.head.weight.view(torch.int32)[0, 0] ^= 1
    assert state_hash(model) != state_hash(original)
