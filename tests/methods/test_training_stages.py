"""What tune and distill share: parameters and the loop's configuration, penalties that act, mixup,
any model.
"""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.pipeline import StageSpec
from petra.methods.base import Context
from petra.methods.distill.distill import Distill
from petra.methods.training import TrainingStage
from petra.methods.tune.tune import Tune
from petra.tasks.base import Task
from petra.tasks.class_losses import CrossEntropy, Focal
from petra.tasks.classification import classification
from petra.tasks.regression import regression
from petra.training.loop import TrainConfig
from petra.training.penalties import PENALTIES, filters, penalised_layers
from petra.workloads.digits import DigitsNet, digits_task

QUICK = {"epochs": 1, "batch_size": 256}
TASK = digits_task()


def trained(
    stage: TrainingStage, problem: tuple[nn.Module, Task]
) -> tuple[nn.Module, dict[str, object]]:
    model, task = problem
    result, trace = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=1))
    return result, dict(trace.details)


@pytest.mark.parametrize("stage", [Tune, Distill])
def test_every_parameter_of_the_loop_reaches_it(stage: type[TrainingStage]) -> None:
    given = {
        "epochs": 2,
        "lr": 0.3,
        "optimizer": "adamw",
        "schedule": "one_cycle",
        "batch_size": 7,
        "weight_decay": 0.25,
        "loss": "focal",
    }  # fmt: skip
    assert stage(**given).config() == TrainConfig(**given)  # type: ignore[arg-type]


def test_parameters_of_the_loss_reach_the_loop_too() -> None:
    config = Tune(brought={"label_smoothing": 0.2}).config()
    assert config.loss_of(TASK) == CrossEntropy(label_smoothing=0.2)
    built = Distill.from_spec(StageSpec("distill", {"loss": "focal", "gamma": 3.0}), TASK)
    assert built.config().loss_of(TASK) == Focal(gamma=3.0)  # type: ignore[attr-defined]


def test_smoothing_is_kept_exactly_with_the_losses_it_changes() -> None:
    """Else two pipelines would do the same."""
    y = torch.tensor([0, 2, 1])
    outputs = {"output": torch.randn(3, 4, generator=torch.Generator().manual_seed(0))}
    for name in ("default", *(loss.name for loss in TASK.losses())):
        plain, smooth = (
            float(TASK.loss(name).having({"label_smoothing": share})(outputs, y))
            for share in (0.0, 0.1)
        )
        kept = Tune.card_for(TASK).normalize({"loss": name, "label_smoothing": 0.1})
        assert ("label_smoothing" in kept.params) == (plain != smooth), name


def test_the_temperature_is_kept_only_where_the_soft_loss_counts() -> None:
    card = Distill.card_for(TASK)
    assert "temperature" in card.normalize({}).params
    assert card.normalize({"alpha": 0.0}) == card.normalize({"alpha": 0.0, "temperature": 2.0})


def test_the_hard_loss_is_kept_only_where_it_counts() -> None:
    card = Distill.card()
    assert card.normalize({"alpha": 0.999999, "loss": "focal"}).params["loss"] == "focal"
    assert card.normalize({"alpha": 1.0, "loss": "focal"}) == card.normalize({"alpha": 1.0})


def test_the_penalty_has_a_weight_only_where_there_is_one() -> None:
    card = Tune.card()
    assert "penalty_weight" not in card.normalize({}).params
    assert all("penalty_weight" in card.normalize({"penalty": kind}).params for kind in PENALTIES)


def weak_half(norms: Tensor) -> float:
    """Share of a layer's summed norms that its weaker half of channels holds: 0.5 where all are
    alike.
    """
    ordered = norms.sort().values
    return float(ordered[: len(ordered) // 2].sum() / ordered.sum())


def spread(model: nn.Module, kind: str) -> float:
    layers = [
        m
        for m in model.modules()
        if isinstance(m, nn.BatchNorm2d if kind == "bn_l1" else nn.Conv2d)
    ]
    norms = [m.weight.abs() if kind == "bn_l1" else filters(m).norm(dim=1) for m in layers]
    return sum(weak_half(n.detach()) for n in norms) / len(norms)


class Plain(nn.Module):
    """Convolutions without batch normalisation, whose filters' lengths matter."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, 1)
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def plain_problem() -> tuple[nn.Module, Task]:
    task = dataclasses.replace(digits_task(), augment=None)
    torch.manual_seed(0)
    model, _ = trained(Tune(epochs=6, lr=0.1, batch_size=64), (Plain(), task))
    return model, task


@pytest.mark.parametrize(
    ("kind", "weight"), [("group_lasso", 0.02), ("growing", 0.1), ("hoyer", 0.3)]
)
def test_filters_grow_unequal_before_they_are_cut(
    plain_problem: tuple[nn.Module, Task], kind: str, weight: float
) -> None:
    common = {"epochs": 4, "lr": 0.1, "batch_size": 64, "weight_decay": 0.0}
    without, _ = trained(Tune(**common), plain_problem)  # type: ignore[arg-type]
    model, details = trained(Tune(penalty=kind, penalty_weight=weight, **common), plain_problem)
    assert spread(model, kind) < 0.75 * spread(without, kind)
    assert float(str(details["score_after"])) > 0.5, "it has not unlearnt the task"
    assert details["penalised"] == ["a", "b"]  # not the classifier, whose channels cannot go


def test_gains_grow_unequal_before_they_are_cut(digits_problem: tuple[DigitsNet, Task]) -> None:
    problem = (digits_problem[0], dataclasses.replace(digits_problem[1], augment=None))
    common = {"epochs": 8, "lr": 0.1, "batch_size": 64}
    without, _ = trained(Tune(**common), problem)  # type: ignore[arg-type]
    model, details = trained(Tune(penalty="bn_l1", penalty_weight=0.02, **common), problem)
    assert spread(model, "bn_l1") < 0.9 * spread(without, "bn_l1")
    assert float(str(details["score_after"])) > 0.8


@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("stage", [Tune, Distill])
def test_every_penalty_acts_on_what_is_trained(
    digits_problem: tuple[DigitsNet, Task], stage: type[TrainingStage], kind: str
) -> None:
    without, _ = trained(stage(**QUICK), digits_problem)  # type: ignore[arg-type]
    result, details = trained(stage(penalty=kind, penalty_weight=0.05, **QUICK), digits_problem)
    path, layer = next(iter(penalised_layers(kind, result).items()))
    assert path in details["penalised"]  # type: ignore[operator]
    assert not torch.equal(layer.weight, without.get_submodule(path).weight)


def test_a_penalty_without_a_layer_is_refused() -> None:
    x, y = torch.randn(64, 4), torch.randint(0, 3, (64,))
    task = classification((x, y), (x, y), (x, y))
    for kind, words in (
        ("bn_l1", "no batch normalisation"),
        ("growing", "layer before the output"),
    ):
        with pytest.raises(StageRefused, match=words):
            trained(Tune(penalty=kind, **QUICK), (nn.Sequential(nn.Linear(4, 3)), task))


@pytest.mark.parametrize("stage", [Tune, Distill])
def test_mixup_trains_on_mixtures_and_repeats_itself(
    digits_problem: tuple[DigitsNet, Task], stage: type[TrainingStage]
) -> None:
    """The model sees images that are in no batch of the task's."""
    plain, mixed, again = (
        trained(stage(mixup=m, **QUICK), digits_problem)[0] for m in (0.0, 1.0, 1.0)
    )  # type: ignore[arg-type]
    weights = [m.classifier.weight for m in (plain, mixed, again)]  # type: ignore[union-attr]
    assert torch.equal(weights[1], weights[2])  # type: ignore[arg-type]
    assert not torch.equal(weights[0], weights[1])  # type: ignore[arg-type]


def test_the_teacher_sees_the_mixed_batch(digits_problem: tuple[DigitsNet, Task]) -> None:
    model, task = digits_problem
    task = dataclasses.replace(task, augment=None)
    known = {
        tuple(row.flatten().tolist())
        for row, _ in zip(*next(task.train.batches(2000)), strict=True)
    }
    seen: list[Tensor] = []
    handle = model.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    try:
        student = copy.deepcopy(model)
        student._forward_hooks.clear()
        student.register_forward_hook(
            lambda m, args, out: seen.append(args[0]) if m.training else None
        )
        Distill(mixup=1.0, **QUICK).apply(student, Context(task=task, teacher=model, seed=1))
    finally:
        handle.remove()
    seen = [batch for batch in seen if len(batch) == 256]  # without looks at two items
    assert len(seen) == 8  # four steps of 256 of 1,078 items, both models
    assert all(torch.equal(own, theirs) for own, theirs in zip(seen[::2], seen[1::2], strict=True))
    # An item may be paired with itself.
    assert sum(tuple(row.flatten().tolist()) in known for row in seen[0]) < 8


def test_mixup_of_integers_is_refused_by_the_inputs_name() -> None:
    ids, y = torch.randint(0, 9, (64, 4)), torch.randint(0, 3, (64,))
    inputs = {"pixels": torch.randn(64, 4), "ids": ids}
    task = classification((inputs, y), (inputs, y), (inputs, y))
    with pytest.raises(StageRefused, match=r"'ids', which is torch\.int64"):
        trained(Tune(mixup=0.2, **QUICK), (nn.Linear(4, 3), task))  # type: ignore[arg-type]


def test_regression_is_mixed_too() -> None:
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    y = x.sum(1)
    task = regression((x, y), (x, y), (x, y), unit=1.0)
    torch.manual_seed(0)
    _, details = trained(
        Tune(epochs=8, lr=0.05, batch_size=64, mixup=1.0, loss="lai_mae"), (nn.Linear(4, 1), task)
    )
    assert float(str(details["score_after"])) < 0.3 * float(str(details["score_before"]))


@pytest.mark.parametrize("stage", [Tune(epochs=2, lr=0.01), Distill(epochs=2, features=1.0)])
def test_a_hugging_face_model_trains(stage: TrainingStage) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=2,
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    ids = torch.randint(0, 50, (96, 8), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    data = (inputs, (ids[:, 0] < 25).long())
    result, details = trained(stage, (model, classification(data, data, data)))
    assert details["steps"]
    assert not torch.equal(result.classifier.weight, model.classifier.weight)
