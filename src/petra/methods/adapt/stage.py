"""Parameter-efficient fine-tuning: which small modules are trained, in which blocks, how large."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Value
from petra.core.trial import StageTrace
from petra.methods.adapt import around
from petra.methods.adapt.attach import Wanted, attach
from petra.methods.adapt.folding import counted, fold, nudge, settle
from petra.methods.adapt.head import head_of
from petra.methods.adapt.places import find_places
from petra.methods.adapt.prompting import attach_prompt
from petra.methods.adapt.sizes import ANY_SIZE, LARGEST, blocks_of, sizes_of
from petra.methods.base import Context, FromModel, Stage, parameter, parameters
from petra.methods.training import LR, OPTIMIZER, TrainingStage
from petra.model.attention.separate import separate_attention
from petra.model.layers.adapters import ACTIVATIONS, ParallelAdapter, SerialAdapter
from petra.model.layers.lora import DoraLayer, LoraLayer
from petra.model.layers.prefix import Prefixed
from petra.model.layers.prompts import Appended, Prompted
from petra.model.layers.vectors import ScaledLayer, ShiftedLayer
from petra.model.outline import outline_of
from petra.model.surgery import count_parameters
from petra.model.trainability import freeze, unfreeze
from petra.space.declare import slots
from petra.space.domains import BOOLEAN, Choice, Integer, Real
from petra.space.effects import INPUT_GRADIENTS, Effects
from petra.space.space import Slot
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, map_inputs

ADAPTED = "adapters"  # modules were put beside layers once

_ON = Integer(1, LARGEST.high)


def _size(doc: str, default: int = 0) -> int:
    return parameter(default, FromModel(sizes_of, ANY_SIZE), f"{doc}; 0: none", limits=LARGEST)


@dataclass(frozen=True)
class Adapt(TrainingStage):
    """Train small modules beside the layers of a frozen transformer, and its head: any of adapters,
    prefixes, low-rank changes, vectors, biases and prompts at once, in the blocks that are chosen.

    The space is that of AutoPEFT (Zhou et al. 2024), a size for every kind of module, 0 for none,
    and a bit for every block, with further kinds: serial adapters (Houlsby et al. 2019) after the
    feed-forward network, before its residual sum, as in Pfeiffer et al. 2021; parallel ones, scaled
    (He et al. 2022); prefixes (Li & Liang 2021), whose reparameterisation is computed once training
    ends; LoRA (Hu et al. 2022), rsLoRA and DoRA; IA3 (Liu et al. 2022); BitFit (Ben Zaken et al.
    2022); a prompt before the first block (Lester et al. 2021). The head is what runs after the
    last block; of one that is quantized, biases alone train. Layers are found in a trace, so models
    of any make may do; one whose places cannot be made out is refused by name. Around codes of a
    quantized base, which get no gradient but pass it, modules train as well (Dettmers et al. 2023,
    "QLoRA") and stay apart.

    When it helps: little data for a large model, many tasks for one, repair of a quantized or
    pruned one. When it does not: where all weights may change and there is data for it; unmerged
    adapters and prefixes cost latency. Costs: epochs x (forward + backward) over the training
    split, without gradients or optimizer states for the base; three forward passes before.
    """

    name: ClassVar[str] = "adapt"
    effects: ClassVar[Effects] = Effects.of(
        needs=[INPUT_GRADIENTS], forbids=[ADAPTED], gives=[ADAPTED]
    )
    on_request: ClassVar[bool] = True
    clashes: ClassVar[tuple[Mapping[str, tuple[Value, ...]], ...]] = (
        {  # nothing would be on
            **dict.fromkeys(("serial", "parallel", "prefix", "prompt"), (0,)),
            **dict.fromkeys(("ia3", "bitfit"), (False,)),
            "lora": (0,),
        },
    )

    layer: Mapping[str, bool] = parameters(blocks_of, True, BOOLEAN, "whether it is adapted")
    serial: int = _size("width of a serial adapter")
    serial_at: str = parameter(
        "feed_forward",
        Choice(("feed_forward",)),
        "after the feed-forward network (Pfeiffer) or both (Houlsby)",
        limits=Choice(("feed_forward", "both")),
        when={"serial": _ON},
    )
    parallel: int = _size("width of an adapter beside the feed-forward network")
    scaling: float = parameter(
        1.0,
        Choice((1.0, 2.0, 4.0)),
        "what a parallel adapter adds, times this",
        limits=Real(1e-3, 1e3),
        when={"parallel": _ON},
    )
    prefix: int = _size("keys and values before those of the tokens, in every attention")
    lora: int = _size("rank of what is added to weights", default=6)
    lora_kind: str = parameter(
        "lora",
        Choice(("lora", "rslora", "dora")),
        "scale 8 / r, 8 / sqrt(r), or directions and lengths of rows apart",
        when={"lora": _ON},
    )
    lora_targets: str = parameter(
        "query_value",
        Choice(("query_value", "attention", "all")),
        "weights of queries and values, of all of attention, or of the block",
        when={"lora": _ON},
    )
    ia3: bool = parameter(False, BOOLEAN, "whether keys, values and hidden activations are scaled")
    bitfit: bool = parameter(False, BOOLEAN, "whether biases are trained")
    prompt: int = _size("states before those of the tokens")
    activation: str = parameter(
        "relu",
        Choice(ACTIVATIONS),
        "between an adapter's two layers",
        when={"serial or parallel": _ON},
    )
    dropout: float = parameter(
        0.0,
        Choice((0.0, 0.1), usual=0.0),
        "inside adapters and low-rank changes",
        limits=Real(0.0, 0.9),
        when={"serial or parallel or lora": _ON},
    )
    head_only: bool = parameter(
        False,
        Choice((False,)),
        "whether the head alone is trained, and no kind of module is on",
        limits=BOOLEAN,
    )
    merge: bool = parameter(
        True, Choice((True,)), "whether what can be becomes part of the weights", limits=BOOLEAN
    )
    optimizer: str = parameter("adamw", OPTIMIZER, "optimizer", scope="optimizer")
    lr: float = parameter(1e-3, Real(1e-4, 1e-2, log=True), "peak learning rate", limits=LR)
    brought: Mapping[str, Value] = slots(Slot("loss", always={"label_smoothing": 0.0}))

    def untrained(self) -> Stage | None:
        """The modules are there, and hardly change anything yet. Of a head alone, nothing is
        left.
        """
        return None if self.head_only else replace(self, epochs=0)

    @classmethod
    def modules(cls) -> tuple[type[nn.Module], ...]:
        return (
            *(SerialAdapter, ParallelAdapter, Prefixed, LoraLayer, DoraLayer),
            *(ScaledLayer, ShiftedLayer, Prompted, Appended),
        )

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        blocks = blocks_of(outline_of(model))
        if not blocks:
            return "the model has no repeated blocks with attention"
        undo, _ = separate_attention(model)
        try:
            found, refused = find_places(model, task.example(2), blocks)
        finally:
            undo()
        return "" if found else _few(refused)

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        self._attach(model, context.task.example(2), context)
        settle(model)
        if self.merge:
            fold(model)
        return model

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        before = count_parameters(model)
        model.to(context.device)
        example = map_inputs(context.task.example(2), lambda t: t.to(context.device))
        known = frozenset(path for path, _ in model.named_modules())
        touched, head, skipped = self._attach(model, example, context)
        freeze(model, but=[m.insert for m in around(model).values()])
        for module in head.values():
            for p in module.parameters(recurse=False):
                p.requires_grad_(p.is_floating_point())
        model, trace = self.train(
            model, context, lambda hard: lambda outputs, inputs, target: hard(outputs, target)
        )
        settle(model)
        if not self.epochs:
            nudge(model, self._generator(context, "nudge"))
        numbers = counted(model, head.values(), of=before)
        context.keep(model)
        apart = fold(model) if self.merge else dict.fromkeys(around(model), "merge is off")
        if not around(model):
            unfreeze(model)  # nothing is left of what the rest was frozen for
        return model, replace(
            trace,
            touched=tuple(dict.fromkeys(_within(path, known) for path in (*touched, *head))),
            skipped=skipped,
            details={**trace.details, "adapt": asdict(numbers), "apart": apart},
        )

    def _attach(
        self, model: nn.Module, example: Inputs, context: Context
    ) -> tuple[list[str], dict[str, nn.Module], dict[str, str]]:
        """Insert all modules: the layers around which they are, the modules of the head by path,
        and the blocks without, with the reason. Raises StageRefused.
        """
        wanted = Wanted(**{name: getattr(self, name) for name in Wanted.__dataclass_fields__})
        if self.head_only == (wanted.in_blocks or wanted.prompt > 0):
            raise StageRefused(
                "modules are on, and the head alone is to be trained"
                if self.head_only
                else "no kind of module is on",
                hint="give one of them a size, set ia3 or bitfit, or set head_only",
            )
        separate_attention(model)  # torch's own, whose projections are one tensor
        blocks = blocks_of(outline_of(model))
        bits = self.layer or dict.fromkeys(blocks, True)
        chosen = [path for path, on in bits.items() if on] if wanted.in_blocks else []
        if not blocks or (wanted.in_blocks and not chosen):
            raise StageRefused(
                "no block is chosen" if blocks else "the model has no repeated blocks",
                hint="modules belong into the blocks of a transformer",
            )
        found, refused = find_places(model, example, chosen)
        if chosen and not found:
            raise StageRefused("no module can be put into the chosen blocks", hint=_few(refused))
        head = {path: model.get_submodule(path) for path in head_of(model, example, blocks)}
        generator = self._generator(context, "modules")
        layers = attach(model, found.values(), wanted, generator)
        touched = [path for paths in layers.values() for path in paths]
        if wanted.in_blocks and not touched:
            raise StageRefused("the chosen blocks have no biases", hint="set bitfit to false")
        model.to(context.device)
        if wanted.prompt:
            touched.append(attach_prompt(model, example, blocks[0], wanted.prompt, generator))
        off = {path: "not chosen" for path, on in bits.items() if not on}
        return touched, head, {**off, **refused}

    def _generator(self, context: Context, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(context.seed_for(purpose))


def _within(path: str, known: Collection[str]) -> str:
    """The innermost module around `path` that was there before."""
    while path not in known:
        path = path.rpartition(".")[0]
    return path


def _few(refused: Mapping[str, str]) -> str:
    """The first of the reasons, with their blocks."""
    return "; ".join(f"{path}: {reason}" for path, reason in [*refused.items()][:3])
