"""After the front is confirmed: what noise leaves open about it is measured, where it can be."""

from __future__ import annotations

from collections.abc import Mapping

from petra.certainty import Pair, doubtful_pairs, no_better
from petra.core.errors import PetraError, StoreError
from petra.core.measurement import Measurement
from petra.core.metric import QUALITY
from petra.core.rng import derive_seed
from petra.core.trial import Trial
from petra.execute.base import Executor
from petra.front import Front
from petra.listener import Listener, Phase


def settled_pairs(front: Front, executor: Executor, listener: Listener) -> Mapping[int, int]:
    """Members of the front that no item of the test split shows to be better than a model with
    lower costs, and that model. Pairs that cannot be compared are told to `listener` and left out.
    """
    differences: dict[Pair, Measurement] = {}
    pairs = [(a, b) for a, b in doubtful_pairs(front) if a.test and b.test]
    if pairs:
        listener.message(Phase("comparing models of the front that are close to each other"))
    for one, other in pairs:
        try:
            differences[one.number, other.number] = executor.difference(one, other)
        except StoreError:
            raise  # the directory, not the models
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns these two alone
            listener.message(
                f"trials {one.number} and {other.number} are not compared: {_text(error)}"
            )
    return no_better(front, differences)


def with_seed(
    trial: Trial, executor: Executor, listener: Listener, *, seed: int, again: int
) -> float | None:
    """Quality on the test split of a confirmed trial's pipeline, run for the `again`-th time, with
    another seed: what the trial owes to luck shows in how these differ. None, which is told to
    `listener`, where it fails.
    """
    listener.message(Phase(f"building trial {trial.number} again, with seed {again}"))
    try:
        return executor.repeat(trial, derive_seed(seed, "repeat", again))[QUALITY].mean
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - it is this seed's
        listener.message(f"trial {trial.number} fails with seed {again}: {_text(error)}")
        return None


def _text(error: Exception) -> str:
    return error.message if isinstance(error, PetraError) else f"{type(error).__name__}: {error}"
