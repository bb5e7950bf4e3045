"""What a pipeline does to an architecture of the zoo: it acts, it refuses with a reason, or it
fails.

Acting means all of it: every stage changed the model, the result was exported to ONNX Runtime's
file (half precision, which has no kernels there, to PyTorch's), the file loads, and computes at
other batch sizes what the PyTorch model computes.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petra.core.errors import DivergedError, MissingExtra, ParityError, StageRefused
from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.core.rng import derive_seed, generator
from petra.core.target import Target
from petra.execute.apply import apply_pipeline
from petra.execute.build import warm_up
from petra.methods.base import Context
from petra.methods.facts import facts_after
from petra.methods.table import STAGES
from petra.model.copies.computed import fold_computed_layers
from petra.model.copies.parametrized import fold_parametrizations
from petra.model.layers.half import half_dtype
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.torch_eager import TorchEager
from petra.runtimes.verify import compare
from petra.space.effects import FLOAT_WEIGHTS
from petra.space.narrow import narrow
from petra.space.space import Space, StageCard
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, call, map_inputs, named, named_outputs
from petra.testing.architectures import ARCHITECTURES
from petra.testing.architectures.base import VAL, Problem

ACTS, REFUSES, FAILS, UNAVAILABLE = "acts", "refuses", "fails", "unavailable"
OUTCOMES = (ACTS, REFUSES, FAILS, UNAVAILABLE)

# What a parameter of this name may be where time counts and quality does not; allowed values only.
CHEAP: Mapping[str, tuple[Value, ...]] = {
    "epochs": (0, 1),
    "epochs_between": (0, 1),
    "steps": (2,),
    "samples": (32,),
    "batch_size": (32,),
}
# Where the default would find nothing to do in networks as narrow as these, or in weights without
# structure.
PARAMETERS: Mapping[str, Mapping[str, Value]] = {
    "prune.structured": {"ratio": 0.4, "round_to": 4},
    "lowrank.svd": {"rule": "ratio", "ratio": 0.3},
}


@dataclass(frozen=True)
class Cell:
    """What came of one pipeline on one architecture. `relative_error` is the artifact's, when it
    got that far.
    """

    architecture: str
    pipeline: Pipeline
    outcome: str
    reason: str = ""
    relative_error: float | None = None
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        return self.architecture, self.pipeline.key

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "pipeline": self.pipeline.as_list()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Cell:
        return Cell(**{**data, "pipeline": Pipeline.from_list(data["pipeline"])})


def attempt(architecture: str, pipeline: Pipeline, *, device: str = "cpu") -> Cell:
    """Try `pipeline` on `architecture`, with stages that work on `device`; whatever is raised is in
    the cell.
    """
    started = time.perf_counter()
    outcome, reason, error = _attempt(architecture, pipeline, device)
    return Cell(
        architecture, pipeline, outcome, reason, error, round(time.perf_counter() - started, 2)
    )


def prepare_architecture(architecture: str) -> str:
    """What all attempts on an architecture begin with, for a worker to do once."""
    warm_up(Target())
    with contextlib.suppress(Exception):  # each attempt meets it again, and says so
        _problem(architecture)
    return architecture


def attempt_in_worker(architecture: str, note: object, pipeline: Pipeline) -> dict[str, Any]:
    """`attempt` as `petra.workers.isolate.Worker` calls it; see `Cell.from_dict`."""
    return attempt(architecture, pipeline).as_dict()


def _attempt(architecture: str, pipeline: Pipeline, device: str) -> tuple[str, str, float | None]:
    where = "building the model"

    def on_stage(index: int, spec: StageSpec) -> None:
        nonlocal where
        where = spec.kind

    try:
        model, task = _problem(architecture)

        def context(prefix: Pipeline) -> Context:
            return Context(
                task=task, teacher=model, seed=derive_seed(0, "stage", prefix.key), device=device
            )

        result, _ = apply_pipeline(model, pipeline, context, cache=None, on_stage=on_stage)
        where = "export"
        error, note = _relative_error(
            result, task, quantized=FLOAT_WEIGHTS not in facts_after(pipeline)
        )
        return ACTS, note, error
    except (StageRefused, DivergedError) as error:
        return (
            REFUSES,
            f"{where}: {error.message}" + (f" ({error.hint[:300]})" if error.hint else ""),
            None,
        )
    except MissingExtra as error:
        return UNAVAILABLE, f"{where}: {error.message}; {error.hint}", None
    except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return FAILS, f"{where}: {type(error).__name__}: {text[:300]}", None


@functools.lru_cache(maxsize=1)
def _problem(architecture: str) -> Problem:
    """The architecture as a study would take it: with the weights that it computes folded."""
    model, task = ARCHITECTURES.get(architecture)()
    fold_parametrizations(model)
    fold_computed_layers(model, lambda m: call(m, task.example(2)))
    return model, task


def _relative_error(model: nn.Module, task: Task, *, quantized: bool) -> tuple[float, str]:
    """Export, reload, and compare every output over the validation split, its first item on its
    own.

    The model runs on the same batches, because what is quantized dynamically depends on them.
    Raises what goes wrong. The tolerance is that of a study, without that of the metric: labels are
    random and logits close together. Where a quantized model misses it, it may do so by no more
    than twice what noise in the last bits of its inputs moves the PyTorch model itself; the note
    then says so. In deep random networks one code that flips changes many others.
    """
    model.to("cpu")
    inputs = task.example(VAL)
    runtime = OnnxRuntime() if half_dtype(model) is None else TorchEager()
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        path = runtime.export(model, task.example(2), Path(scratch) / f"model{runtime.suffix}")[0]
        session = runtime.load(path)
        batches = [map_inputs(inputs, lambda t: t[:1]), map_inputs(inputs, lambda t: t[1:])]
        expected = [named_outputs(call(model, batch)) for batch in batches]
        got = [
            session.run({name: t.numpy() for name, t in named(batch).items()}) for batch in batches
        ]
    worst, note = 0.0, ""
    for name in expected[0]:
        if name not in got[0]:
            raise ParityError(f"the artifact has no output {name!r}, only {sorted(got[0])}")
        reference = torch.cat([outputs[name] for outputs in expected]).float().numpy()
        array = np.concatenate([arrays[name] for arrays in got])
        try:
            error = compare(array, reference, quantized=quantized, score=lambda predictions: 0.0)[
                "relative_error"
            ]
        except ParityError:
            own = _unrest(model, inputs, name) if quantized else 0.0
            error = _distance(array, reference)
            if not error <= 2 * own:
                raise
            note = (
                f"the file is {error:.1%} off, and input noise of 1e-6 moves the PyTorch model by"
                f" {own:.1%}"
            )
        worst = max(worst, error)
    return float(f"{worst:.2g}"), note


def _distance(array: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square difference over the spread of the reference, as in
    `petra.runtimes.verify`.
    """
    return float(
        np.sqrt(np.mean((array.astype(np.float64) - reference) ** 2)) / (np.std(reference) or 1.0)
    )


@torch.no_grad()
def _unrest(model: nn.Module, inputs: Inputs, name: str, *, draws: int = 8) -> float:
    """The largest distance, of a few, that relative noise of 1e-6 in floating-point inputs moves an
    output by.
    """
    random = torch.Generator().manual_seed(0)

    def noisy(t: Tensor) -> Tensor:
        return (
            t * (1 + 1e-6 * torch.randn(t.shape, generator=random)) if t.is_floating_point() else t
        )

    before = named_outputs(call(model, inputs))[name].float().numpy()
    after = (
        named_outputs(call(model, map_inputs(inputs, noisy)))[name].float().numpy()
        for _ in range(draws)
    )
    return max(_distance(array, before) for array in after)


# -- what to try -----------------------------------------------------------------------------------


def cheap_cards(task: Task | None = None) -> dict[str, StageCard]:
    """The declaration of every stage, with parameters that cost time held small and losses those of
    `task`.
    """
    cards = {}
    for kind in STAGES:
        card = STAGES.get(kind).card()
        ranges = {
            p.name: [v for v in CHEAP.get(p.name, ()) if p.limits.contains(v)]
            for p in card.parameters
        }
        card = narrow(card, {name: values for name, values in ranges.items() if values}, where=kind)
        cards[kind] = STAGES.get(kind).fitted(card, task) if task else card
    return cards


def shortest_pipeline(kind: str) -> Pipeline:
    """The shortest legal pipeline that ends with a stage of `kind`, in cheap parameters."""
    space = Space(cheap_cards(), max_length=4)
    # Among equally short ones, those of which we know parameters that act.
    order = sorted(space.cards, key=lambda name: (name not in PARAMETERS, name))
    specs = {name: space.cards[name].normalize(PARAMETERS.get(name, {})) for name in order}
    level = [Pipeline()]
    while level:
        for pipeline in level:
            if space.is_legal(found := Pipeline((*pipeline.stages, specs[kind]))):
                return found
        longer = (Pipeline((*pipeline.stages, specs[name])) for pipeline in level for name in order)
        level = [pipeline for pipeline in longer if space.is_legal(pipeline)]
    raise ValueError(f"no legal pipeline ends with {kind}")


def draw_chains(
    architectures: Sequence[str],
    count: int,
    *,
    seed: int,
    without: Collection[tuple[str, str]] = (),
) -> Iterator[tuple[str, Pipeline]]:
    """`count` random legal pipelines of 2 to 5 stages, for the architectures in turn.

    without: pairs of an architecture and a kind of stage that is not to be drawn for it.
    """
    spaces: dict[str, Space] = {}
    for index in range(count):
        name = architectures[index % len(architectures)]
        if name not in spaces:
            _, task = ARCHITECTURES.get(name)()
            cards = {
                kind: card
                for kind, card in cheap_cards(task).items()
                if (name, kind) not in without
            }
            spaces[name] = Space(cards, max_length=5)
        rng = generator(seed, "chain", index)
        while len(pipeline := spaces[name].sample(rng)) < 2:
            pass
        yield name, pipeline
