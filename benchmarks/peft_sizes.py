"""BERT-base, RoBERTa-base and T5-base at true size, with random weights: every usual configuration
attached and counted, one of them trained for a step and exported.

    python benchmarks/peft_sizes.py

Counts are compared with the formulas of what is inserted, and shares of BERT-base with those that
AutoPEFT's paper reports for its baselines (Zhou et al. 2024, table 1). Writes
``results/peft-sizes.md``. Needs 3 GB and some minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from host import heading
from peft_problem import normalized
from torch import Tensor, nn

import petra
from petra.core.errors import PetraError, StageRefused
from petra.core.pipeline import Pipeline
from petra.core.rng import derive_seed
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.model.surgery import count_parameters
from petra.recipes.peft import USUAL, usual
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.base import Task

RESULTS = Path(__file__).parent / "results"
WIDTH, HIDDEN, LAYERS, LENGTH, ITEMS = 768, 3072, 12, 16, 4
# Of BERT-base, in percent.
PUBLISHED = {"LoRA": 0.27, "serial, Pfeiffer": 0.81, "parallel": 0.81, "prefix": 0.17}
SHIPPED = "UniPELT-like"  # what is trained for a step and exported: three kinds at once


class T5Classifier(nn.Module):
    """T5 with a linear head on the first state of its decoder."""

    def __init__(self, t5: nn.Module) -> None:
        super().__init__()
        self.t5, self.head = t5, nn.Linear(WIDTH, 2)

    def forward(self, input_ids: Tensor) -> Tensor:
        begin = torch.zeros_like(input_ids[:, :1])
        state = self.t5(input_ids=input_ids, decoder_input_ids=begin, use_cache=False)
        result: Tensor = self.head(state.last_hidden_state[:, 0])
        return result


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    model: nn.Module = BertForSequenceClassification(BertConfig())
    return model


def roberta() -> nn.Module:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    model: nn.Module = RobertaForSequenceClassification(config)
    return model


def t5() -> nn.Module:
    from transformers import T5Config, T5Model

    config = T5Config(
        vocab_size=32128, d_model=WIDTH, d_ff=HIDDEN, d_kv=64, num_layers=LAYERS, num_heads=12
    )
    return T5Classifier(T5Model(config))


@dataclass(frozen=True)
class Kind:
    """An architecture: how it is made, how many blocks and attentions it has, and the biases of a
    block: those of four projections, two feed-forward layers and two norms.
    """

    make: Callable[[], nn.Module]
    blocks: int = LAYERS
    attentions: int = LAYERS
    biases: int = 4 * WIDTH + HIDDEN + WIDTH + 2 * WIDTH


KINDS: Mapping[str, Kind] = {
    "BERT-base": Kind(bert),
    "RoBERTa-base": Kind(roberta),
    # Of T5, blocks of the decoder have two attentions, and nothing has a bias.
    "T5-base": Kind(t5, 2 * LAYERS, 3 * LAYERS, 0),
}


def expected(kind: Kind, modules: Mapping[str, Any]) -> int:
    """Parameters of what a configuration inserts: two layers with biases for an adapter of width w,
    2 w d + w + d; two times l vectors for a prefix of length l; 2 r d for LoRA of rank r at a
    square weight.
    """
    at = kind.blocks + (kind.attentions if modules.get("serial_at") == "both" else 0)
    serial, parallel = int(modules.get("serial", 0)), int(modules.get("parallel", 0))

    def bottleneck(width: int) -> int:
        return 2 * width * WIDTH + width + WIDTH if width else 0

    prefix = 2 * int(modules.get("prefix", 0)) * WIDTH
    lora = 2 * 2 * int(modules.get("lora", 0)) * WIDTH
    biases = kind.biases if modules.get("bitfit") else 0
    beside = kind.blocks * (bottleneck(parallel) + biases)
    return at * bottleneck(serial) + beside + kind.attentions * (prefix + lora)


def problem(kind: Kind) -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    ids, labels = torch.randint(5, 1000, (ITEMS, LENGTH)), torch.arange(ITEMS) % 2
    split = ({"input_ids": ids}, labels)
    return kind.make().eval(), petra.classification(split, split, split)


def adapted(
    model: nn.Module, task: Task, pipeline: Pipeline
) -> tuple[nn.Module, Mapping[str, Any], float]:
    """What the pipeline makes of the model, the account of its modules, and seconds."""

    def context(prefix: Pipeline) -> Context:
        return Context(task=task, teacher=model, seed=derive_seed(0, prefix.key))

    start = time.perf_counter()
    whole = normalized(pipeline, model, task)
    result, traces = apply_pipeline(
        model, whole, context, cache=None, on_stage=lambda i, spec: None
    )
    account: Any = traces[-1].details["adapt"]
    return result, account, time.perf_counter() - start


def rows(name: str, kind: Kind, only: list[str]) -> list[str]:
    """The lines of one architecture."""
    model, task = problem(kind)
    total = count_parameters(model)
    found = []
    for way in only:
        pipeline = usual(way, WIDTH, epochs=1, batch_size=ITEMS)
        if USUAL[way].modules is None:
            continue
        try:
            result, account, seconds = adapted(model, task, pipeline)
        except StageRefused as refused:
            found.append(f"| {name} | {way} | refused: {refused.message} |" + " |" * 5)
            continue
        count = int(account["trainable_parameters"])
        wanted = expected(kind, dict(pipeline.stages[0].params))
        right = "yes" if count == wanted else f"no, {wanted:,}"
        said = f"{PUBLISHED[way]:.2f}%" if name == "BERT-base" and way in PUBLISHED else ""
        cells = [name, way, f"{count:,}", right, f"{100 * count / total:.2f}%", said]
        cells += [f"{seconds:.1f}", exported(result, task) if way == SHIPPED else ""]
        found.append("| " + " | ".join(cells) + " |")
        print(found[-1], flush=True)
    return found


def exported(model: nn.Module, task: Task) -> str:
    """The size of its ONNX file."""
    with tempfile.TemporaryDirectory() as place:
        try:
            files = OnnxRuntime().export(model, task.example(2), Path(place) / "model.onnx")
        except PetraError as error:
            return f"fails: {error.message}"
        return f"{sum(f.stat().st_size for f in files) / 1e6:.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--ways", nargs="*", choices=list(USUAL), default=list(USUAL))
    given = parser.parse_args()
    lines = heading("Adapters at true size, random weights", "python benchmarks/peft_sizes.py")
    lines += [
        "- share: trained parameters without the head, of all of the model's; seconds: attached,"
        " one step trained, merged where that can be",
        "",
        "| model | configuration | trained | as the formula | share | published | seconds | ONNX |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in given.only:
        lines += rows(name, KINDS[name], given.ways)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peft-sizes.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
