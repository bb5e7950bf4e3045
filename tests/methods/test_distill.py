"""Distillation: the mixture, the feature distance, which blocks match, and that students move
towards their teacher.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.distill import distill
from petra.methods.distill.attention import (
    are_probabilities,
    attention_shown,
    spatial_attention,
    without_dropout,
)
from petra.methods.distill.distill import Distill, mixed_loss
from petra.methods.distill.features import Pair, Spot, matched, relative_distance, tapped
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.testing.stage_suite import small_problem
from petra.training import precision
from petra.workloads.digits import DigitsNet

MODEL, TASK = small_problem()
CONTEXT = Context(task=TASK, teacher=MODEL, seed=1)
G = torch.Generator().manual_seed(0)


def test_the_mixture() -> None:
    hard, soft = torch.tensor(2.0), torch.tensor(6.0)
    assert float(mixed_loss(hard, soft, 0.0)) == 2.0
    assert float(mixed_loss(hard, soft, 1.0)) == 6.0
    assert float(mixed_loss(hard, soft, 0.25)) == pytest.approx(3.0)


def test_relative_distance_by_loops() -> None:
    student, teacher = (
        [torch.randn(s, generator=G) for s in ((2, 3), (4, 1, 5))] for _ in range(2)
    )
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        above = sum(
            (float(a) - float(b)) ** 2 for a, b in zip(s.flatten(), t.flatten(), strict=True)
        )
        expected += above / sum(float(b) ** 2 for b in t.flatten()) / 2
    assert float(relative_distance(student, teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(relative_distance(teacher, teacher)) == 0.0


def test_blocks_match_by_name_and_shape() -> None:
    student = copy.deepcopy(MODEL)
    student.block2 = nn.Sequential(nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1))
    student.stem = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()
    )  # no padding: another shape
    student.other = nn.Sequential(nn.Identity())
    found = matched(student, MODEL, TASK.example(2))
    assert found == ()  # everything behind the stem has another shape
    student.stem = copy.deepcopy(MODEL.stem)
    found = matched(student, MODEL, TASK.example(2))
    assert {str(pair) for pair in found} == {"stem", "block1", "block2", "block3"}


def test_taps_see_the_latest_pass_and_are_removed() -> None:
    student = copy.deepcopy(MODEL)
    with (
        tapped(student, MODEL, [Pair(Spot("block1"), Spot("block1"))]) as (own, theirs),
        torch.no_grad(),
    ):
        student(TASK.example(3))
        MODEL(TASK.example(3))
        MODEL(TASK.example(5))
        assert len(own.outputs()[0]) == 3
        assert len(theirs.outputs()[0]) == 5
        student.forward = lambda x: student.head(
            student.stem(x).mean((2, 3))
        )  # passes the blocks by
        student(TASK.example(3))
        assert own.outputs() == [None]
    assert not any(m._forward_hooks for m in (*student.modules(), *MODEL.modules()))


@pytest.mark.parametrize("features", [0.0, 3.0])
def test_a_damaged_student_moves_towards_its_teacher(
    digits_problem: tuple[DigitsNet, Task], features: float
) -> None:
    teacher, task = digits_problem
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.5 * p.std() * torch.randn(p.shape, generator=G) if p.ndim > 1 else 0.0)
    before = copy.deepcopy(student)
    context = Context(task=task, teacher=teacher, seed=1)
    student, trace = Distill(epochs=3, lr=0.02, batch_size=64, features=features).apply(
        student, context
    )
    x = task.val.head(200)
    with torch.no_grad():
        distances = [
            float(task.distance()({"output": m(x)}, {"output": teacher(x)}))
            for m in (before, student)
        ]
    assert distances[1] < 0.5 * distances[0]
    assert bool(trace.details["blocks_matched"]) == bool(features)


def test_features_without_a_common_block_are_refused() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(StageRefused, match="no block"):
        Distill(features=1.0).apply(plain, CONTEXT)


# -- blocks of other names -------------------------------------------------------------------------


class Chain(nn.Module):
    """Blocks of given widths, under a name of its own, in a container that passes the last block's
    output on.
    """

    def __init__(self, name: str, widths: list[int]) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.Tanh())
            for a, b in zip([3, *widths], widths, strict=False)
        ]
        self.add_module(name, nn.Sequential(*blocks))
        self.name = name
        self.classifier = nn.Linear(widths[-1], 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.get_submodule(self.name)(x).mean((2, 3)))
        return logits


def names(pairs: tuple[Pair, ...]) -> list[str]:
    return [str(pair) for pair in pairs]


def test_blocks_match_by_shape_in_the_order_they_run() -> None:
    x = TASK.example(2)
    small, large = Chain("small", [8, 8, 16]), Chain("large", [8, 8, 8, 8, 16, 16, 12])
    assert matched(small, large, x) == ()
    # Two blocks of 8 channels stand for four: the second and the fourth. The containers pass on
    # what counts already.
    by_shape = ["small.0 ~ large.1", "small.1 ~ large.3", "small.2 ~ large.5"]
    assert names(matched(small, large, x, match="shape")) == by_shape
    assert names(matched(large, small, x, match="shape")) == [
        " ~ ".join(reversed(p.split(" ~ "))) for p in by_shape
    ]
    twin = copy.deepcopy(small)
    assert names(matched(small, twin, x, match="shape")) == ["small.0", "small.1", "small.2"]


@pytest.mark.parametrize(("features_kind", "widths"), [("values", [8, 12]), ("attention", [6, 10])])
def test_a_student_with_other_names_moves_towards_its_teachers_blocks(
    features_kind: str, widths: list[int]
) -> None:
    """With attention even widths may differ. Distances fall further than with logits alone."""
    torch.manual_seed(0)
    student, teacher = Chain("a", widths), Chain("b", [8, 8, 12])
    distances = []
    for weight in (0.0, 3.0):
        stage = Distill(
            epochs=4,
            lr=0.05,
            batch_size=32,
            features=weight,
            features_kind=features_kind,
            match="shape",
        )
        result, _ = stage.apply(copy.deepcopy(student), Context(task=TASK, teacher=teacher, seed=1))
        pairs = matched(result, teacher, TASK.example(2), kind=features_kind, match="shape")
        assert pairs
        with tapped(result, teacher, pairs) as (own, theirs), torch.no_grad():
            result(TASK.val.head(32))
            teacher(TASK.val.head(32))
            distances.append(float(relative_distance(own.outputs(), theirs.outputs())))
    assert distances[1] < 0.7 * distances[0]


def test_which_blocks_only_means_something_with_features() -> None:
    card = Distill.card()
    assert not {"match", "features_kind"} & set(card.normalize({}).params)
    assert {"match", "features_kind"} <= set(card.normalize({"features": 0.5}).params)


# -- attention -------------------------------------------------------------------------------------


def test_spatial_attention_by_loops() -> None:
    features = torch.randn(2, 3, 2, 2, generator=G)
    got = spatial_attention(features)
    for item, image in zip(got, features, strict=True):
        energy = [
            [sum(float(image[c, i, j]) ** 2 for c in range(3)) for j in range(2)] for i in range(2)
        ]
        norm = sum(v * v for row in energy for v in row) ** 0.5
        assert item.flatten().tolist() == pytest.approx(
            [v / norm for row in energy for v in row], rel=1e-5
        )
    assert torch.isfinite(spatial_attention(torch.zeros(1, 2, 3))).all()


def test_what_looks_like_attention() -> None:
    maps = torch.softmax(torch.randn(2, 3, 4, 5, generator=G), -1)
    assert are_probabilities(maps)
    assert not are_probabilities(maps + 0.01)
    assert not are_probabilities(maps[0])
    assert not are_probabilities(
        torch.stack([2 * maps[..., 0], maps[..., 1:].sum(-1) - maps[..., 0]], -1) * 1.5
    )
    assert not are_probabilities(torch.ones(2, 3, 4, 1))


class Encoder(nn.Module):
    """torch's own encoder, which asks its attention for no weights."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        layer = nn.TransformerEncoderLayer(8, heads, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.classifier = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.encoder(self.table(x)).mean(1))
        return logits


IDS = torch.randint(0, 12, (96, 6), generator=G)
WORDS = classification(
    (IDS, (IDS[:, 0] < 6).long()), (IDS, (IDS[:, 0] < 6).long()), (IDS, (IDS[:, 0] < 6).long())
)


def maps_by_hand(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) from the projection weights."""
    q, k, _ = (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
    heads, size = attention.num_heads, attention.head_dim
    q, k = (t.unflatten(-1, (heads, size)).transpose(1, 2) for t in (q, k))
    return torch.softmax(q @ k.transpose(-1, -2) / size**0.5, -1)


def test_torch_attention_shows_its_maps_inside_and_only_there() -> None:
    torch.manual_seed(0)
    model = Encoder().eval()
    first = model.encoder.layers[0].self_attn
    before = model(IDS[:4])
    assert matched(model, model, IDS[:4], kind="attention") == ()
    with attention_shown(model):
        pairs = matched(model, model, IDS[:4], kind="attention")
        assert names(pairs) == ["encoder.layers.0.self_attn", "encoder.layers.1.self_attn"]
        with tapped(model, model, pairs) as (own, _), torch.no_grad():
            got = model(IDS[:4])
            assert torch.allclose(
                own.outputs()[0], maps_by_hand(first, model.table(IDS[:4])), atol=1e-6
            )
    assert torch.allclose(before, got, atol=1e-5)
    assert not any(m._forward_pre_hooks for m in model.modules())


def bert(layers: int = 2) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=16, num_labels=2, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(layers)
    model: nn.Module = transformers.BertForSequenceClassification(config).eval()
    return model


def test_hugging_face_models_show_their_maps_inside_and_only_there() -> None:
    model = bert()
    with torch.no_grad():
        before = model(IDS[:4]).logits
    assert model.config._attn_implementation == "sdpa"
    with attention_shown(model):
        pairs = matched(model, model, IDS[:4], kind="attention", match="shape")
        with tapped(model, model, pairs) as (own, _), torch.no_grad():
            got = model(IDS[:4])
    with attention_shown(model), torch.no_grad():
        expected = model(IDS[:4], output_attentions=True).attentions
    assert len(pairs) == len(expected) == 2
    assert all(torch.equal(a, b) for a, b in zip(own.outputs(), expected, strict=True))
    assert torch.allclose(before, got.logits, atol=1e-5)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("make", [Encoder, bert])
def test_attention_maps_are_learnt_from_the_teacher(make: type[nn.Module]) -> None:
    """Student and teacher with other weights; the distance of their maps falls further than with
    logits alone.
    """
    teacher, student = make(), make()
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p))))
    distances = []
    for weight in (0.0, 3.0):
        stage = Distill(
            epochs=6,
            lr=0.01,
            optimizer="adamw",
            batch_size=32,
            features=weight,
            features_kind="attention",
        )
        result, trace = stage.apply(
            copy.deepcopy(student), Context(task=WORDS, teacher=teacher, seed=1)
        )
        assert bool(trace.details["blocks_matched"]) == bool(weight)
        with attention_shown(result, teacher):
            pairs = matched(result, teacher, IDS[:2], kind="attention")
            with tapped(result, teacher, pairs) as (own, theirs), torch.no_grad():
                result(IDS), teacher(IDS)
                distances.append(float(relative_distance(own.outputs(), theirs.outputs())))
    assert distances[1] < 0.7 * distances[0]


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
