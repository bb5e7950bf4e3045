"""The outline of a model: modules, widths and the blocks that repeat."""

from __future__ import annotations

import torch
from torch import nn

from petra.model.outline import outline_of
from petra.space.outline import ModelOutline
from petra.testing.stage_suite import ResidualNet


def blocks(model: nn.Module) -> list[str]:
    return [m.path for m in outline_of(model).blocks]


def test_it_holds_kinds_widths_and_sizes() -> None:
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 3), nn.ReLU(), nn.LSTM(3, 5))
    outline = outline_of(model)
    found = [(m.path, m.kind, m.inputs, m.outputs, m.parameters) for m in outline.modules]
    assert found == [
        ("", "Sequential", 0, 0, 627),
        ("0", "Embedding", 50, 8, 400),
        ("1", "Linear", 8, 3, 27),
        ("2", "ReLU", 0, 0, 0),
        ("3", "LSTM", 3, 5, 200),
    ]
    assert [m.path for m in outline.of_kind("Linear", "LSTM")] == ["1", "3"]


def test_weights_do_not_matter_and_the_record_is_plain() -> None:
    one, two = ResidualNet(), ResidualNet()
    with torch.no_grad():
        two.head.weight.zero_()
    assert outline_of(one) == outline_of(two)
    assert hash(outline_of(one)) == hash(outline_of(two))
    assert isinstance(outline_of(one), ModelOutline)


def test_blocks_are_what_is_repeated_side_by_side() -> None:
    assert blocks(ResidualNet()) == ["block1", "block2", "block3"]
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    encoder = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(layer, 4))
    assert blocks(encoder) == [f"1.layers.{i}" for i in range(4)]
    assert blocks(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))) == []
    plain = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)))
    assert blocks(plain) == ["0", "1", "2"], "containers, where there is nothing else"


def test_blocks_of_several_stages_come_together() -> None:
    """As in a residual network: more in one place than the stages that hold them."""

    def stage(count: int) -> nn.Sequential:
        return nn.Sequential(*(ResidualNet(4).block1 for _ in range(count)))

    net = nn.Sequential(stage(2), stage(4), stage(2))
    assert blocks(net) == [
        *("0.0", "0.1", "1.0", "1.1", "1.2", "1.3", "2.0", "2.1"),
    ]
