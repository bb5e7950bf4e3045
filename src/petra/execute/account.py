"""What a pipeline trained, and what that took: read off the traces of its stages, whatever of them
ran now and whatever was found in the cache.

A training says in its trace how many parameters might change (`trained_parameters`); a stage that
inserts modules keeps an account of its own under `ADAPT`, in which the head stands apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from petra.core.measurement import Measurement
from petra.core.trial import StageTrace

ADAPT = "adapt"
"""Among the details of a stage: its modules' `trainable_parameters`, and the `head_parameters` that
were trained beside them.
"""
_TRAINED, _ON_DEVICE = "trained_parameters", "device_memory_mb"


def account(trace: Sequence[StageTrace]) -> dict[str, Measurement]:
    """Metrics of what was trained: `trainable_params`, `trainable_share` and `train_memory_mb`, all
    0 where nothing was.
    """
    count = trainable_parameters(trace)
    whole = trace[0].params_before if trace else 0
    return {
        "trainable_params": Measurement(float(count)),
        "trainable_share": Measurement(count / whole if whole else 0.0),
        "train_memory_mb": Measurement(training_memory_mb(trace), unit="MB"),
    }


def trainable_parameters(trace: Sequence[StageTrace]) -> int:
    """How many parameters training might change: of several trainings the most, since they are of
    one model. The head, which is known from the first stage with modules on, does not count.
    """
    most = head = 0
    for stage in trace:
        adapted = stage.details.get(ADAPT)
        if isinstance(adapted, Mapping):
            head = _number(adapted.get("head_parameters"))
            most = max(most, _number(adapted.get("trainable_parameters")))
        else:
            counts = [_number(training[_TRAINED]) for training in _trainings(stage.details)]
            most = max([most, *(count - head for count in counts)])
    return most


def trains_weights(trace: Sequence[StageTrace]) -> bool:
    """Whether weights of the model itself were trained, by a stage that inserts no modules."""
    return any(ADAPT not in s.details and any(_trainings(s.details)) for s in trace)


def training_memory_mb(trace: Sequence[StageTrace]) -> float:
    """The most memory that any training took: of the GPU where it ran on one, else the peak of the
    process in that stage, with all that it held before.
    """
    found = [0.0]
    for stage in trace:
        for training in _trainings(stage.details):
            on_device = training.get(_ON_DEVICE)
            found.append(
                float(on_device) if isinstance(on_device, int | float) else stage.peak_memory_mb
            )
    return max(found)


def _trainings(details: object) -> Iterator[Mapping[str, object]]:
    """The accounts of all trainings in a stage's details: some stages train several times."""
    if isinstance(details, Mapping):
        if _TRAINED in details:
            yield details
        for inner in details.values():
            yield from _trainings(inner)
    elif isinstance(details, list | tuple):
        for inner in details:
            yield from _trainings(inner)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
