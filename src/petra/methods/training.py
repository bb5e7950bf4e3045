"""What stages that train have in common: the domains of their parameters and the call of the loop."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.space.domains import Choice, Integer, Real, Text
from petra.training.loop import LossFunction, TrainConfig, fit

EPOCHS = Integer(1, 1000)
LR = Real(1e-6, 10.0, log=True)
OPTIMIZER = Choice(("sgd", "adamw"))
SCHEDULE = Choice(("cosine", "one_cycle"))
BATCH_SIZE = Integer(1, 65536)
WEIGHT_DECAY = Real(0.0, 1.0)
LOSS = Text("default", "default or the name of one of the task's losses")


def run_fit(
    stage: str,
    model: nn.Module,
    config: TrainConfig,
    context: Context,
    *,
    loss_fn: LossFunction | None = None,
    penalty: Callable[[], Tensor] | None = None,
) -> tuple[nn.Module, StageTrace]:
    """Train all weights and report which layers were trained and how the validation score moved.

    Raises StageRefused when there are none.
    """
    if not any(p.is_floating_point() for p in model.parameters()):
        raise StageRefused("the model has no weights to train")
    for p in model.parameters():
        p.requires_grad_(True)
    result = fit(
        model,
        context.task,
        config,
        seed=context.seed_for(stage),
        device=context.device,
        loss_fn=loss_fn,
        penalty=penalty,
        progress=context.progress,
    )
    touched = tuple(name for name, m in model.named_modules() if any(True for _ in m.parameters(recurse=False)))
    return model, StageTrace(stage, touched=touched, details=result.as_details())
