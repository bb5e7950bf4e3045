"""What ships with a file besides its figures: what raw data goes through before it, what its inputs
and outputs are and look like, how it was run, a sample, and digests of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petra.core.interface import Interface, TensorSpec
from petra.core.meaning import Meaning
from petra.core.target import Target
from petra.core.trial import Trial
from petra.report.interface_text import observed_in_words, sizes_in_words
from petra.runtimes.base import InputSpec
from petra.runtimes.verify import INT8_TOLERANCE

NOT_STATED = "not stated"
NO_OTHER = "; no other size runs"
SAY_IT = (
    "say it where the task is made, petra.classification(..., preprocessing='pixels / 255'), or"
    " when exporting, `petra export --preprocessing TEXT`; 'none' where inputs are raw data"
)


@dataclass(frozen=True)
class Evidence:
    """What is known of a file of the trial, whose study says `meaning` and `interface`.

    `looked` is what `petra.measure.evidence.look_at` found of it, run as `target` says. `sample`
    are the names of the two files with a sample and its outputs, () where none ships; they were
    made on `host`, which need not be where figures were measured.
    """

    trial: Trial
    target: Target
    looked: Mapping[str, Any]
    interface: Interface | None = None
    meaning: Meaning = field(default_factory=Meaning)
    sample: tuple[str, ...] = ()
    host: Mapping[str, object] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What the file declares of its inputs."""
        return tuple(InputSpec(**spec) for spec in self.looked["inputs"])

    @property
    def items(self) -> int:
        """Of the sample."""
        return int(self.looked.get("sample", {}).get("items", 0))

    @property
    def tolerance(self) -> float:
        """The relative error that the file was allowed against the PyTorch model, and is against
        itself elsewhere; where a study does not say, that of a quantized one.
        """
        return min(float(self.trial.parity.get("tolerance", INT8_TOLERANCE)), INT8_TOLERANCE)

    def remarks(self) -> list[str]:
        """What whoever ships the file should know that it does not say."""
        said = []
        if not self.meaning.preprocessing:
            said.append(
                "preprocessing is not stated: whoever feeds raw data to the file gets wrong"
                f" results without an error; {SAY_IT}"
            )
        if "observed" not in self.looked:
            said.append("the study's data is not there: no sample goes with the file")
        return said

    def preprocessing_lines(self) -> list[str]:
        """What raw data goes through, before the file and in it."""
        stated = self.meaning.preprocessing
        lines = [
            f"before the file: {stated}"
            if stated
            else (
                f"before the file: {NOT_STATED}. Inputs have to look like those below, which may"
                " not be raw data; ask whoever made the model"
            )
        ]
        inside = self.meaning.inside or (
            "no normalisation of petra's; the model's own layers are not looked into",
        )
        return [*lines, *(f"in the file: {line}" for line in inside)]

    def input_lines(self) -> list[str]:
        """A line for every input."""
        specs = {spec.name: spec for spec in self.interface.inputs} if self.interface else {}
        return [
            self._line(declared.name, declared.dtype, specs.get(declared.name), declared.shape)
            + NO_OTHER * any(size is not None for size in declared.shape)
            + self._seen("inputs", declared.name)
            for declared in self.inputs
        ]

    def output_lines(self) -> list[str]:
        """A line for every output, and what the one that is judged means."""
        known = {spec.name: spec for spec in self.interface.outputs} if self.interface else {}
        declared = {spec["name"]: InputSpec(**spec) for spec in self.looked["outputs"]}
        names = list(self.looked.get("observed", {}).get("outputs", declared or known))
        judged = self.interface.judged[:1] if self.interface else names[:1]
        lines = []
        for name in names:
            spec, file = known.get(name), declared.get(name)
            dtype, shape = (file.dtype, file.shape) if file else ("", ())
            what = f": {self._means(name)}" if name in judged else ""
            lines.append(self._line(name, dtype, spec, shape) + self._seen("outputs", name) + what)
        return lines

    def _line(
        self, name: str, dtype: str, spec: TensorSpec | None, shape: tuple[int | None, ...]
    ) -> str:
        if spec is None:
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            return f"{name}: {dtype} ({sizes})" if dtype else name
        axes = ", ".join(axis.name or str(axis.size or "?") for axis in spec.axes)
        return f"{name}: {dtype or spec.dtype} ({axes}); {sizes_in_words(spec, shape)}"

    def _seen(self, side: str, name: str) -> str:
        observed = self.looked.get("observed", {})
        text = observed_in_words(observed.get(side, {}).get(name, {}))
        if not text:
            return ""
        items = f"{observed['output_items']} " if side == "outputs" else ""
        return f"; on {items}validation items {text}"

    def _means(self, name: str) -> str:
        meaning = self.meaning
        said = meaning.output or f"what it means is {NOT_STATED}"
        if meaning.scores and (observed := self.looked.get("observed")):
            said += (
                "; the scores are probabilities: positive, with sum 1"
                if name in observed["probabilities"]
                else "; the scores are logits, no probabilities: a softmax makes such of them"
            )
        if meaning.classes:
            shown = ", ".join(meaning.classes[:20])
            more = ", ..." if len(meaning.classes) > 20 else ""
            said += f"; classes in this order: {shown}{more}"
        return said

    def data_lines(self) -> list[str]:
        """The splits that figures are of, and by what they are recognised."""
        found = self.looked.get("data", {})
        titles = {"val": "validation", "test": "test"}
        return [
            f"{titles[name]}: {split['items']} items, SHA-256 {split['sha256']}"
            for name, split in found.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as a bundle keeps it."""
        observed = self.looked.get("observed", {})
        outputs = observed.get("outputs", {})
        return {
            "preprocessing": self.meaning.preprocessing or NOT_STATED,
            "inside": list(self.meaning.inside),
            "output": self.meaning.output or NOT_STATED,
            "classes": list(self.meaning.classes),
            "interface": self.interface.as_dict() if self.interface else None,
            "inputs_in_words": self.input_lines(),
            "outputs_in_words": self.output_lines(),
            "observed": {"inputs": observed.get("inputs", {}), "outputs": outputs},
            "run_as": {
                "runtime": self.target.runtime,
                "device": self.target.device,
                "threads": self.target.threads,
                "batch": self.target.batch,
                "throughput_batch": self.target.throughput_batch,
                "options": dict(self.target.options),
            },
            "data": dict(self.looked.get("data", {})),
            "sample": {
                "items": self.items,
                "tolerance": self.tolerance,
                "made_on": dict(self.host),
                "deviations": {
                    name: seen["deviation"] for name, seen in outputs.items() if "deviation" in seen
                },
            }
            if self.sample
            else None,
        }
