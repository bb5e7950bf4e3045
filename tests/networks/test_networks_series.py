"""Networks of series and images: shapes, sizes against the papers', what the outputs depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from petra.model.description.module_classes import find_class
from petra.model.flops import macs_by_module
from petra.model.surgery import count_parameters
from petra.networks.inception_time import InceptionTime
from petra.networks.lstm_fcn import LSTMFCN
from petra.networks.resnet import BasicBlock, CifarResNet, TinyResNet8
from petra.networks.tcn import TCN


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(x)
    return found


# What the docstrings say: parameters, and multiply-accumulates of one item of 140 steps.
SIZES = {
    "InceptionTime": (
        InceptionTime(1, 5), 404_736 + 5 * 129, 402_688 * 140 + 5 * 128
    ),
    "LSTMFCN": (LSTMFCN(1, 140, 5), 269_549, 36_831_016),
    "TCN": (TCN(1, 10), 66_510, 65_825 * 140 + 250),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_as_documented(name: str) -> None:
    model, parameters, macs = SIZES[name]
    assert count_parameters(model) == parameters
    assert macs_by_module(model.eval(), lambda m: m(torch.randn(1, 1, 140)))[""] == macs
    words = " ".join((type(model).__doc__ or "").split())
    assert f"{parameters if name != 'InceptionTime' else 404_736:,} parameters" in words


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("outputs", [1, 4])
def test_series_of_any_length_and_number_of_channels(channels: int, outputs: int) -> None:
    models = [
        InceptionTime(channels, outputs, filters=4),
        TCN(channels, outputs, filters=5, depth=3),
    ]
    for model in models:
        for n, length in ((1, 5), (3, 24), (2, 61)):
            assert run(model, torch.randn(n, channels, length)).shape == (n, outputs)
    model = LSTMFCN(channels, 24, outputs)
    assert run(model, torch.randn(3, channels, 24)).shape == (3, outputs)


# -- published sizes -------------------------------------------------------------------------------


def test_inception_time_has_the_published_size() -> None:
    """Ismail-Fawaz et al. 2023 (LITE) count 420,192 trainable parameters before the output layer,
    for one channel and kernels of 40, 20 and 10.
    """
    model = InceptionTime(1, 2)
    one_tap_more = sum(
        branch.weight[:, :, 0].numel() for block in model.blocks for branch in block.branches
    )
    assert count_parameters(model) - count_parameters(model.head) + one_tap_more == 420_192


def test_the_fcn_has_the_published_size() -> None:
    """The same authors count 264,704 in the FCN, whose first kernel is 8 and whose convolutions
    have biases.
    """
    fcn = LSTMFCN(1, 140, 2).fcn
    assert count_parameters(fcn) + 128 + (128 + 256 + 128) == 264_704


def test_the_tcn_of_sequential_mnist_has_the_published_size() -> None:
    """About 70K (Bai et al. 2018, table 1), with a gain for every filter."""
    gains = 16 * 25
    assert count_parameters(TCN(1, 10)) + gains == pytest.approx(70_000, rel=0.05)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (56, 0.85), (110, 1.7)])
def test_cifar_resnets_have_the_published_sizes(depth: int, millions: float) -> None:
    """He et al. 2016, table 6."""
    found = count_parameters(CifarResNet(depth)) / 1e6
    assert found == pytest.approx(millions, abs=0.03 if depth == 110 else 0.005)


def test_the_resnet_of_mlperf_tiny_has_the_published_size() -> None:
    """78,666 with the statistics of its batch norms (Banbury et al. 2021)."""
    model = TinyResNet8()
    statistics = sum(2 * norm.num_features for norm in model.bn)
    assert count_parameters(model) + statistics == 78_666


# -- what outputs depend on ------------------------------------------------------------------------


def test_no_step_of_a_tcn_sees_a_later_one_and_all_see_as_far_back_as_is_said() -> None:
    kernel, depth, length = 3, 3, 48
    model = TCN(2, 1, filters=8, depth=depth, kernel=kernel).eval()
    reach = 2 * (kernel - 1) * (2**depth - 1)
    x = torch.randn(1, 2, length)
    before = run(model.blocks, x)
    ends = []
    for step in range(length):
        other = x.clone()
        other[:, :, step] += 3.0
        changed = (run(model.blocks, other) - before).abs().amax((0, 1)) > 1e-6
        seen = changed.nonzero().flatten()
        assert seen[0] == step
        assert seen[-1] <= step + reach
        ends.append(int(seen[-1]) - step)
    assert max(ends) == reach
    assert 1 + 2 * (7 - 1) * (2**8 - 1) == 3_061  # of the defaults
    torch.testing.assert_close(run(model, x), run(model.head, before[:, :, -1]))


def test_the_lstm_of_an_lstm_fcn_takes_channels_as_steps() -> None:
    model = LSTMFCN(3, 24, 2).eval()
    cell = nn.LSTMCell(24, 8)
    for name, parameter in cell.named_parameters():
        parameter.data = getattr(model.lstm, f"{name}_l0").data
    x = torch.randn(5, 3, 24)
    h = c = torch.zeros(5, 8)
    with torch.no_grad():
        for channel in range(3):
            h, c = cell(x[:, channel], (h, c))
        expected = model.head(torch.cat([model.fcn(x).mean(2), h], 1))
    torch.testing.assert_close(run(model, x), expected)


def test_inception_time_has_a_shortcut_around_every_three_modules() -> None:
    model = InceptionTime(2, 3, filters=4, depth=7).eval()
    x = torch.randn(4, 2, 30)
    with torch.no_grad():
        y = x
        for group in range(2):
            h = y
            for block in model.blocks[3 * group : 3 * group + 3]:
                h = block(h)
            y = torch.relu(h + model.shortcuts[group](y))
        expected = model.head(model.blocks[6](y).mean(2))
    torch.testing.assert_close(run(model, x), expected)


# -- where ResNets used to be ----------------------------------------------------------------------


def test_classes_are_found_where_kept_models_and_study_files_look_for_them() -> None:
    from petra.workloads import resnet

    assert resnet.CifarResNet is CifarResNet
    assert find_class("petra.workloads.resnet:BasicBlock", {}, "layer1.0") is BasicBlock
