"""A small space and a made-up evaluation of it, without torch: milliseconds where a real candidate
takes minutes.

The evaluation has the structure of the real thing: compression damages, training afterwards repairs
(before, it does not), quantization comes last, good values of parameters depend on each other, some
pipelines fail. It is a pure function of the pipeline and of how much of its training it gets.
"""

from __future__ import annotations

import math

from petra.core.errors import StageRefused
from petra.core.measurement import Measurement
from petra.core.objective import Constraint, Objective
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import generator
from petra.core.trial import FULL, Failure, Fidelity, Proposal, Trial, TrialStatus
from petra.search.base import Problem
from petra.space.domains import BOOLEAN, Choice, Domain, Integer, Real
from petra.space.effects import FLOAT_WEIGHTS, PLAIN_LAYERS, TRAINABLE, Effects
from petra.space.parameters import Parameter
from petra.space.space import Space, StageCard

OBJECTIVES = (
    Objective("quality", True),
    Objective("latency_ratio", False),
    Objective("size_bytes", False),
)


def _parameter(
    name: str,
    default: bool | float | str,
    domain: Domain,
    *,
    scope: str = "",
    **when: tuple[str, ...],
) -> Parameter:
    return Parameter(name, default, domain, domain, name, when, scope)


_TRAINING = (
    _parameter("epochs", 3, Integer(1, 12, log=True)),
    _parameter("optimizer", "sgd", Choice(("sgd", "adamw")), scope="optimizer"),
    _parameter("lr", 0.01, Real(1e-4, 0.3, log=True), scope="optimizer"),
    _parameter("momentum", 0.9, Real(0.0, 0.99), scope="optimizer", optimizer=("sgd",)),
    _parameter("loss", "plain", Choice(("plain", "smooth", "robust")), scope="loss"),
    _parameter("smoothing", 0.1, Real(0.01, 0.3), scope="loss", loss=("smooth",)),
)
_TRAINS = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])
_QUANTIZES = Effects.of(needs=[FLOAT_WEIGHTS], removes=[FLOAT_WEIGHTS, TRAINABLE])
CARDS = (
    StageCard("tune", _TRAINING, _TRAINS),
    StageCard(
        "distill", (*_TRAINING, _parameter("temperature", 2.0, Real(1.0, 10.0, log=True))), _TRAINS
    ),
    StageCard(
        "prune",
        (
            _parameter("ratio", 0.3, Real(0.05, 0.95)),
            _parameter("importance", "magnitude", Choice(("magnitude", "taylor", "random"))),
            _parameter("norm", 1, Choice((1, 2)), importance=("magnitude",)),
            _parameter("round_to", 8, Choice((1, 4, 8))),
        ),
        Effects.of(needs=[FLOAT_WEIGHTS, PLAIN_LAYERS]),
    ),
    StageCard(
        "factorize",
        (
            _parameter("energy", 0.9, Real(0.3, 0.99)),
            _parameter("decomposer", "svd", Choice(("svd", "cur"))),
            _parameter("spatial", False, BOOLEAN),
        ),
        Effects.of(needs=[FLOAT_WEIGHTS, PLAIN_LAYERS], removes=[PLAIN_LAYERS]),
    ),
    StageCard(
        "quantize.static",
        (
            _parameter("per_channel", True, BOOLEAN),
            _parameter("samples", 128, Integer(16, 512, log=True)),
        ),
        _QUANTIZES,
    ),
    StageCard("quantize.dynamic", (_parameter("embeddings", True, BOOLEAN),), _QUANTIZES),
    StageCard("half", (), _QUANTIZES),
)


def toy_space(*, max_length: int = 5) -> Space:
    """Seven kinds of stage: two train, two compress structure, three change the number format."""
    return Space({card.name: card for card in CARDS}, max_length)


def toy_problem(
    *, seed: int = 0, constraints: tuple[Constraint, ...] = (), max_length: int = 5
) -> Problem:
    """Quality against latency against size on `toy_space`."""
    return Problem(toy_space(max_length=max_length), OBJECTIVES, constraints, seed)


class _Model:
    """What is left of an imaginary model: fractions of its parameters and latency, damage done and
    not repaired.
    """

    def __init__(self) -> None:
        self.kept, self.latency, self.bits, self.damage = 1.0, 1.0, 32, 0.0

    def train(self, stage: StageSpec, skill: float, epochs: float) -> None:
        p = stage.params
        best = 0.03 if p["optimizer"] == "sgd" else 0.002
        tuned = math.exp(-(math.log10(float(p["lr"]) / best) ** 2))
        if p["optimizer"] == "sgd":
            tuned *= 1 - 0.5 * (float(p["momentum"]) - 0.9) ** 2
        tuned *= {
            "plain": 0.95,
            "smooth": 1 - abs(float(p.get("smoothing", 0.1)) - 0.1),
            "robust": 0.9,
        }[str(p["loss"])]
        if stage.kind == "distill":
            tuned *= math.exp(-(math.log10(float(p["temperature"]) / 4) ** 2))
        self.damage *= 1 - skill * tuned * (1 - math.exp(-epochs / 3))

    def run(self, stage: StageSpec, epochs: float) -> None:
        p = stage.params
        if stage.kind in ("tune", "distill"):
            self.train(stage, 0.8 if stage.kind == "tune" else 0.9, epochs)
        elif stage.kind == "prune":
            ratio = float(p["ratio"])
            self.kept *= 1 - ratio
            if self.kept < 0.06:
                raise StageRefused("no channels left", layer="conv")
            self.latency *= (1 - 0.9 * ratio) * {1: 1.25, 4: 1.05, 8: 1.0}[int(p["round_to"])]
            harm = {"magnitude": 0.5, "taylor": 0.4, "random": 1.0}[str(p["importance"])]
            self.damage += harm * (1.1 if p.get("norm") == 2 else 1.0) * ratio**2
        elif stage.kind == "factorize":
            loss = 1 - float(p["energy"])
            self.kept *= 1 - 0.9 * loss**0.5
            self.latency *= 1 - (0.6 if p["spatial"] else 0.4) * loss**0.5
            self.damage += (0.6 if p["decomposer"] == "svd" else 0.8) * loss
        elif stage.kind == "quantize.static":
            self.bits, self.latency = 8, 0.5 * self.latency
            self.damage += (0.02 if p["per_channel"] else 0.06) + 0.5 / float(p["samples"])
        elif stage.kind == "quantize.dynamic":
            self.bits, self.latency = 8 if p["embeddings"] else 12, 0.8 * self.latency
            self.damage += 0.01
        else:
            self.bits, self.latency = 16, 0.9 * self.latency


def toy_epochs(pipeline: Pipeline, fidelity: Fidelity = FULL) -> list[float]:
    """Epochs that each stage trains: of the whole pipeline's, in order, the fidelity's share, and
    of each epoch the share of the data.
    """
    wanted = [float(stage.params.get("epochs", 0)) for stage in pipeline]
    left = 0.0 if fidelity.zero_shot else fidelity.epochs * sum(wanted)
    found = []
    for epochs in wanted:
        found.append(fidelity.data * min(epochs, left))
        left = max(0.0, left - epochs)
    return found


def toy_metrics(pipeline: Pipeline, fidelity: Fidelity = FULL) -> dict[str, Measurement]:
    """Metrics of a legal pipeline; the noise is a function of its key.

    Raises StageRefused where pruning fails.
    """
    model = _Model()
    for stage, epochs in zip(pipeline, toy_epochs(pipeline, fidelity), strict=True):
        model.run(stage, epochs)
    rng = generator(0, pipeline.key, "toy noise")
    quality = 0.2 + 0.7 * math.exp(-3 * model.damage) + 0.002 * float(rng.normal())
    latency = model.latency * (1 + 0.01 * float(rng.normal())) if len(pipeline) else 1.0
    return {
        "quality": Measurement(quality, 0.002, 100),
        "latency_ratio": Measurement(latency, 0.01, 100, "x"),
        "size_bytes": Measurement(round(20_000 + 1e6 * model.kept * model.bits / 32), unit="B"),
    }


def toy_baseline() -> Trial:
    """Trial 0 of every toy study."""
    return Trial(0, Pipeline(), TrialStatus.COMPLETE, metrics=toy_metrics(Pipeline()))


def toy_trial(proposal: Proposal, *, constraints: tuple[Constraint, ...] = ()) -> Trial:
    """Evaluate a proposal: complete, infeasible or failed."""
    try:
        metrics = toy_metrics(proposal.pipeline, proposal.fidelity)
    except StageRefused as error:
        failure = Failure("prune", type(error).__name__, error.message)
        return proposal.ended(TrialStatus.FAILED, failure=failure)
    broken = any(c.violation(metrics, toy_baseline().metrics) for c in constraints)
    return proposal.ended(
        TrialStatus.INFEASIBLE if broken else TrialStatus.COMPLETE, metrics=metrics
    )
