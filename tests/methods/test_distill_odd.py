"""Distillation where attention drops, is missing, or is nobody's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from attending_models import IDS, WORDS, Encoder, bert
from distilled_parts import TASK, names
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.distill import distill
from petra.methods.distill.attention import (
    attention_shown,
    without_dropout,
)
from petra.methods.distill.distill import Distill
from petra.methods.distill.features import matched, relative_distance
from petra.tasks.classification import classification
from petra.training import precision


def torch_dropping() -> nn.Module:
    torch.manual_seed(0)
    model = Encoder()
    for layer in model.encoder.layers:
        layer.self_attn.dropout = 0.5  # type: ignore[union-attr]
    return model


def bert_dropping() -> nn.Module:
    model = bert()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for layer in model.bert.encoder.layer:  # type: ignore[union-attr]
        layer.attention.self.dropout.p = 0.5  # type: ignore[union-attr]
    return model


class OwnAttention(nn.Module):
    """As many write it: a module for the dropout of the maps, another for that of the result."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.drop_maps, self.drop_result = nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (
            layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        maps = self.drop_maps(torch.softmax(q @ k.transpose(-1, -2), -1))
        return self.drop_result((maps @ v).transpose(1, 2).flatten(2)), maps


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.attention, self.classifier = (
            nn.Embedding(12, 8),
            OwnAttention(),
            nn.Linear(8, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.attention(self.table(x))[0].mean(1))
        return logits


@pytest.mark.parametrize("make", [torch_dropping, bert_dropping, Own])
def test_maps_are_compared_as_they_are_before_dropout(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal models are at no distance though the student drops half of its maps when it trains;
    afterwards it does.
    """
    seen: list[float] = []

    def watched(own: Iterable[Tensor], theirs: Iterable[Tensor]) -> Tensor:
        distance = relative_distance(own, theirs)
        seen.append(float(distance.detach()))
        return distance

    monkeypatch.setattr(distill, "relative_distance", watched)
    teacher = make().eval()
    stage = Distill(
        epochs=1, lr=1e-6, batch_size=32, weight_decay=0.0, features=1.0, features_kind="attention"
    )
    student, _ = stage.apply(copy.deepcopy(teacher), Context(task=WORDS, teacher=teacher, seed=1))
    assert len(seen) == 3
    assert max(seen) < 1e-6
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in student.modules())
    assert not torch.equal(student.train()(IDS[:4])[0], student(IDS[:4])[0])


def test_only_the_dropout_of_maps_rests() -> None:
    torch.manual_seed(0)
    model = Own().train()
    x = model.table(IDS[:4])
    with without_dropout([model.attention]):
        results, maps = zip(*(model.attention(x) for _ in range(2)), strict=True)
    assert torch.equal(*maps)
    assert not torch.equal(*results)
    assert all(m.training for m in model.modules())


def test_fewer_layers_learn_from_the_teachers_last() -> None:
    teacher, student = bert(4), bert(2)
    with attention_shown(student, teacher):
        found = names(matched(student, teacher, IDS[:2], kind="attention", match="shape"))
    layer = "bert.encoder.layer.{}.attention.self"
    assert found == [
        f"{layer.format(0)} ~ {layer.format(1)}",
        f"{layer.format(1)} ~ {layer.format(3)}",
    ]


def test_attention_that_nothing_computes_is_refused() -> None:
    x, y = torch.randn(64, 4), torch.randint(0, 3, (64,))
    task = classification((x, y), (x, y), (x, y))
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 3))
    with pytest.raises(StageRefused, match="attention of the same name"):
        Distill(features=1.0, features_kind="attention").apply(
            copy.deepcopy(model), Context(task=task, teacher=model, seed=1)
        )


class Dropping(Encoder):
    """Leaves its first layer out every other time it trains."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += self.training
        layers = self.encoder.layers[self.passes % 2 :]
        h = self.table(x)
        for layer in layers:
            h = layer(h)
        logits: Tensor = self.classifier(h.mean(1))
        return logits


def test_layers_that_are_dropped_at_random_are_left_out() -> None:
    torch.manual_seed(0)
    teacher = Dropping().eval()
    stage = Distill(epochs=2, batch_size=32, features=1.0)
    _, trace = stage.apply(copy.deepcopy(teacher), Context(task=WORDS, teacher=teacher, seed=1))
    assert "encoder.layers.0" in trace.details["blocks_matched"]


class Watched(nn.Module):
    """A network that notes in what type it computed."""

    def __init__(self, seen: set[torch.dtype]) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        self.seen.add(y.dtype)
        return y.mean((2, 3))

    def __deepcopy__(self, memo: object) -> Watched:
        twin = Watched(self.seen)
        twin.load_state_dict(self.state_dict())
        return twin


@pytest.mark.parametrize("bf16", [True, False])
def test_the_teacher_computes_like_the_student_and_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: bf16)
    theirs: set[torch.dtype] = set()
    teacher = Watched(theirs).eval()
    before = teacher.layer.weight.detach().clone()
    Distill(epochs=1).apply(Watched(set()), Context(task=TASK, teacher=teacher, seed=1))
    assert theirs == {torch.bfloat16 if bf16 else torch.float32}
    assert torch.equal(teacher.layer.weight, before)
    assert teacher.layer.weight.stride() == before.stride()
