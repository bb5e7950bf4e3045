"""Which facts hold for the untouched model: what may be done to it first depends on what it is."""

from __future__ import annotations

from torch import nn

from petra.core.pipeline import Pipeline
from petra.methods.table import STAGES
from petra.model.imported.module import ImportedModel
from petra.space.effects import (
    DENSE_WEIGHTS,
    FLOAT_WEIGHTS,
    INITIAL_FACTS,
    INPUT_GRADIENTS,
    TRAINABLE,
)
from petra.space.space import Space

# Where modules that petra's own stages leave in models are defined: without one, none is loaded.
_OURS = ("petra.model.", "petra.methods.")
_OF_TRAINING = frozenset({TRAINABLE, INPUT_GRADIENTS})


def facts_of(model: nn.Module) -> frozenset[str]:
    """The facts that hold for a model as it comes in (`petra.intake`): all initial ones, except
    for what speaks against one.

    A model that holds a stage's modules (`Stage.modules`) is as after that stage. Where most of the
    weights are stored as integers, they are no float weights, and not trainable. Where zeros are
    kept (`keep_zeros`), weights are not dense. What came as an ONNX file is not trained. Frozen
    parameters are trainable: what a person froze for a training of their own is trained here like
    the rest. A model of half precision comes in as a float32 copy. Costs one walk over the modules.
    """
    facts = INITIAL_FACTS
    classes = {type(module) for module in model.modules()}
    ours = any(cls.__module__.startswith(_OURS) for cls in classes)
    for name in STAGES.names() if ours else sorted(STAGES.added()):
        stage = STAGES.get(name)
        if classes.intersection(stage.modules()):
            facts = stage.effects.after(facts)
    if any(getattr(module, "keep_zeros", False) for module in model.modules()):
        facts -= {DENSE_WEIGHTS}
    if _mostly_integers(model):
        facts -= {FLOAT_WEIGHTS, TRAINABLE}
    return facts - _OF_TRAINING if isinstance(model, ImportedModel) else facts


def beyond_file(stage: str, model: nn.Module) -> str:
    """Why a stage is nothing for a model that came as an ONNX file; '' where it is, and for any
    other model.
    """
    needs = STAGES.get(stage).effects.needs
    if not isinstance(model, ImportedModel) or needs.isdisjoint(_OF_TRAINING):
        return ""
    return "it needs training, and an ONNX file holds no training"


def facts_after(pipeline: Pipeline, facts: frozenset[str] = INITIAL_FACTS) -> frozenset[str]:
    """What holds after a pipeline of registered stages on a model of which `facts` hold."""
    cards = {spec.kind: STAGES.get(spec.kind).card() for spec in pipeline}
    return Space(cards, facts=facts).facts_after(pipeline)


def _mostly_integers(model: nn.Module) -> bool:
    total = sum(p.numel() for p in model.parameters())
    floating = sum(p.numel() for p in model.parameters() if p.is_floating_point())
    return 2 * floating < total
